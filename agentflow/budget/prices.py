"""The price book: finds what a model costs. Unknown is never free.

Layers, the first that knows a model serves: prices given by the caller, the small dated file of ours, the
genai-prices package, litellm's cost map. A model that none of them knows has no price. None of them is read before
it is needed, and none asks the network. May import price, price_layers, errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agentflow.budget.price import FREE_LOCAL, Difference, Price, Rates, Tier
from agentflow.budget.price_layers import genai, litellm, shipped
from agentflow.errors import UnpricedModel

__all__ = ["FREE_LOCAL", "Difference", "Price", "PriceBook", "Rates", "Tier"]

_LAYERS = (shipped.find, genai.find, litellm.find)


class PriceBook:
    """Finds the price of a model by its exact id.

    A ``provider/`` before the name is understood: ``openai/gpt-4o`` is OpenAI's gpt-4o, and ``my-server/gpt-4o``
    is not. A dated id (``gpt-4o-2024-05-13``) is an id of its own, never cut down to the undated one, because
    providers have priced them apart; a table that lists only the undated id may serve a dated one of it.

    Args:
        given: prices by model name that win over every table. They are for exactly these names: a free
            ``gpt-4o`` of your own server does not make ``openai/gpt-4o`` free.

    Example:
        >>> PriceBook().require("openai/gpt-4o").source
        'agentflow 2026-11-21'
    """

    def __init__(self, given: Mapping[str, Price] | None = None) -> None:
        self._given = dict(given or {})

    def find(self, model: str, provider: str | None = None) -> Price | None:
        """The price of exactly this model, or None when nobody states one."""
        return next(self._ask(model, provider), None)

    def answers(self, model: str, provider: str | None = None) -> tuple[Price, ...]:
        """What every layer that knows this model says; the first of them serves."""
        return tuple(self._ask(model, provider))

    def require(self, model: str, provider: str | None = None) -> Price:
        """The price of a model.

        Raises:
            UnpricedModel: no layer knows it.
        """
        price = self.find(model, provider)
        if price is None:
            raise UnpricedModel(
                f"No price is known for model {model!r}. Give one in agentflow.toml, in dollars per million tokens: "
                "price = { input = 0.5, output = 1.5 }; for a server of your own, price = { input = 0, output = 0 }."
            )
        return price

    def _ask(self, model: str, provider: str | None) -> Iterator[Price]:
        if model in self._given:
            yield self._given[model]
        name = model
        if provider is None and "/" in model:
            provider, name = model.split("/", 1)
        elif provider is not None:
            name = model.removeprefix(f"{provider}/")
        provider = provider or shipped.seller(name)
        sellers = shipped.sellers(provider) if provider else ()
        for find in _LAYERS:
            price = find(name, sellers)
            if price is not None:
                yield price
