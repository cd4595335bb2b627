"""Prices given in the configuration: they win over every table. May import price and config."""

from __future__ import annotations

from agentflow.budget.price import Price, Rates, Tier
from agentflow.config import PriceSettings, RateSettings

SOURCE = "agentflow.toml"
_FREE = Rates(input=0, output=0, cache_read=0, cache_write=0, reasoning=0, image=0, audio=0, request=0)


def price(settings: PriceSettings) -> Price:
    """The price of a model's own table. One of nothing but zeros makes every unit free: a server of your own."""
    usual = _rates(settings)
    if not any(usual.stated().values()):
        usual = usual.filled(_FREE)
    longer = sorted(settings.tiers, key=lambda tier: tier.above)
    tiers = (Tier(0, usual), *(Tier(tier.above, _rates(tier)) for tier in longer))
    batch = () if settings.batch is None else (Tier(0, _rates(settings.batch)),)
    return Price(tiers, batch, SOURCE, "" if settings.date is None else settings.date.isoformat())


def _rates(table: RateSettings) -> Rates:
    return Rates.dollars(
        input=table.input,
        output=table.output,
        cache_read=table.cache_read,
        cache_write=table.cache_write,
        reasoning=table.reasoning,
        image=table.image,
        audio=table.audio_second,
        request=table.request,
    )
