"""Price: what a model costs, exact, with its source and date. May import money, errors, messages.

A provider sells by the unit: tokens of several kinds, images, seconds of audio, requests. Rates is one price list;
Price holds all lists of a model: the usual one, those of longer prompts, those of the batch interface. Unknown is
never free: a gap in a list is filled with the dearest that could apply, and a unit that no list names is refused.
Where prices come from: ``prices``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from operator import attrgetter

from agentflow.budget.money import NANO
from agentflow.errors import UnpricedModel
from agentflow.messages import TokenUsage

_MILLION = 1_000_000
_UNITS = ("input", "output", "cache_read", "cache_write", "reasoning", "image", "audio", "request")
_by_unit = attrgetter(*_UNITS)
# Dollars as price lists state them, in nano-dollars per million of the unit. Tokens are already stated per million;
# seconds of audio are counted in milliseconds.
_SCALE = {"image": NANO * _MILLION, "audio": NANO * _MILLION // 1_000, "request": NANO * _MILLION}


@dataclass(frozen=True, slots=True)
class Rates:
    """One price list, in nano-dollars per million: tokens, images, milliseconds of audio, requests.

    None is unknown, and what it means depends on the unit:

    - ``cache_read``, ``cache_write``: prompt tokens read from or written to the provider's cache cost the full
      input price;
    - ``reasoning``: reply tokens spent on thinking cost the output price;
    - ``input``, ``output``, ``image``, ``audio``: the model is not known to be sold by this unit; a call that uses
      it is refused;
    - ``request``: there is no fee for the call itself.
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    image: int | None = None
    audio: int | None = None
    request: int | None = None

    def __post_init__(self) -> None:
        """Refuse prices that would pay the caller: a budget would grow by spending."""
        for unit, rate in self.stated().items():
            if rate < 0:
                raise ValueError(f"a price cannot be negative: {unit} = {rate} nano-dollars per million")

    @classmethod
    def dollars(cls, **rates: Decimal | str | None) -> Rates:
        """Rates from dollars as price lists state them, to whole nano-dollars per million; none rounds to nothing.

        Args:
            rates: dollars per million tokens (``input``, ``output``, ``cache_read``, ``cache_write``,
                ``reasoning``), per ``image``, per second of ``audio``, per ``request``; None is unknown.

        Example:
            >>> Rates.dollars(input="2.5", output="10", audio="0.0001").audio
            100000000
        """
        return cls(**{unit: None if usd is None else _rate(unit, usd) for unit, usd in rates.items()})

    def stated(self) -> dict[str, int]:
        """The rates that are known, by unit, in the order of the fields."""
        rates = {unit: getattr(self, unit) for unit in _UNITS}
        return {unit: rate for unit, rate in rates.items() if rate is not None}

    def filled(self, *usual: Rates) -> Rates:
        """This list with its gaps filled, each with the dearest of what could apply.

        Args:
            usual: the lists that this one departs from, nearest first: none for the usual list itself.
        """
        lists = (self, *usual, Rates(request=0))
        fresh, reply = _first(rates.input for rates in lists), _first(rates.output for rates in lists)
        return Rates(
            fresh,
            reply,
            _first((self.cache_read, _dearest(fresh, *(rates.cache_read for rates in usual)))),
            _first((self.cache_write, _dearest(fresh, *(rates.cache_write for rates in usual)))),
            _first((self.reasoning, _dearest(reply, *(rates.reasoning for rates in usual)))),
            _first(rates.image for rates in lists),
            _first(rates.audio for rates in lists),
            _first(rates.request for rates in lists),
        )


@dataclass(frozen=True, slots=True)
class Tier:
    """The price list of calls whose prompt is longer than ``above`` tokens; it covers prompt and reply alike."""

    above: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Difference:
    """A rate on which two prices disagree, both in nano-dollars per million of ``unit``."""

    unit: str
    above: int
    batch: bool
    ours: int
    theirs: int


@dataclass(frozen=True, slots=True)
class _InForce:
    """Price lists without gaps, and the worst case of each: from, up to and at which rates.

    In the worst case every token is of the dearest of its kind. The last list has no end.
    """

    tiers: tuple[Tier, ...]
    worst: tuple[tuple[int, int | None, Rates], ...]

    @classmethod
    def of(cls, tiers: Sequence[Tier]) -> _InForce:
        ends = [*(tier.above for tier in tiers[1:]), None]
        worst = [(tier.above, end, _worst(tier.rates)) for tier, end in zip(tiers, ends, strict=True)]
        return cls(tuple(tiers), tuple(worst))


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, by whom that is said and when.

    Args:
        tiers: price lists by length of the prompt, the first of them from 0 tokens on, in ascending order. What a
            later one leaves out costs the dearer of its own full price and of what the first one states.
        batch: price lists of the provider's batch interface, likewise; empty when no rebate is known. A length that
            has a price list of its own above and none here costs the former.
        source: who states the price.
        date: when it was looked up, as an ISO date.
        note: what to keep in mind.

    Example:
        >>> gpt_4o = Price.per_million("2.5", "10", "1.25", source="docs", date="2026-07-01")
        >>> gpt_4o.cost(TokenUsage(input=10_000, cached_input=8_000, output=1_000))
        25000000
    """

    tiers: tuple[Tier, ...]
    batch: tuple[Tier, ...] = ()
    source: str = "given"
    date: str = ""
    note: str = ""
    _in_force: _InForce = field(init=False, repr=False, compare=False)
    _batch_in_force: _InForce = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fill the gaps once, and refuse lists that do not begin at 0 or do not ascend."""
        for tiers in (self.tiers, self.batch or self.tiers):
            starts = [tier.above for tier in tiers]
            if starts[:1] != [0] or starts != sorted(set(starts)):
                raise ValueError(f"price lists begin above 0 tokens and ascend, these begin above {starts}")
        first = self.tiers[0].rates
        usual = [Tier(0, first.filled()), *(Tier(tier.above, tier.rates.filled(first)) for tier in self.tiers[1:])]
        batch = {tier.above: tier for tier in usual}
        for tier in self.batch:
            nearest = _for_prompt(self.tiers, tier.above + 1)
            batch[tier.above] = Tier(tier.above, tier.rates.filled(nearest, first))
        object.__setattr__(self, "_in_force", _InForce.of(usual))
        object.__setattr__(self, "_batch_in_force", _InForce.of([batch[above] for above in sorted(batch)]))

    @classmethod
    def per_million(
        cls,
        input: Decimal | str,
        output: Decimal | str,
        cache_read: Decimal | str | None = None,
        cache_write: Decimal | str | None = None,
        *,
        source: str,
        date: str = "",
    ) -> Price:
        """A price of tokens alone, the same for every prompt, in dollars per million tokens."""
        rates = Rates.dollars(input=input, output=output, cache_read=cache_read, cache_write=cache_write)
        return cls((Tier(0, rates),), source=source, date=date)

    @property
    def rates(self) -> Rates:
        """The usual price list, as it was stated."""
        return self.tiers[0].rates

    def in_force(self, *, batch: bool = False) -> tuple[Tier, ...]:
        """The price lists that calls are charged by: those stated, with every gap filled."""
        return self._lists(batch).tiers

    def cost(self, usage: TokenUsage, *, images: int = 0, audio_ms: int = 0, batch: bool = False) -> int:
        """Nano-dollars of one call, half a nano-dollar up.

        The sum, over the units, of how many there were times the rate of each; the length of the prompt chooses the
        price list. Of the prompt, ``input - cached_input - cache_write`` tokens cost the input rate; of the reply,
        ``output - reasoning`` tokens cost the output rate.

        Args:
            usage: tokens of the call.
            images: images it took or made.
            audio_ms: milliseconds of audio it took or made.
            batch: whether it went through the provider's batch interface.

        Raises:
            UnpricedModel: the call used a unit that the model is not known to be sold by.
            ValueError: a count is negative.
        """
        fresh = max(0, usage.input - usage.cached_input - usage.cache_write)
        reply = max(0, usage.output - usage.reasoning)
        counts = (fresh, reply, usage.cached_input, usage.cache_write, usage.reasoning, images, audio_ms, 1)
        if min(usage.input, usage.output, *counts) < 0:
            raise ValueError(f"a call cannot have used a negative count: {usage}, {images=}, {audio_ms=}")
        total = self._total(_for_prompt(self._lists(batch).tiers, usage.input), counts)
        return (2 * total + _MILLION) // (2 * _MILLION)

    def ceiling(
        self, input_tokens: int, output_tokens: int, *, images: int = 0, audio_ms: int = 0, batch: bool = False
    ) -> int:
        """The most nano-dollars that a call of at most these counts can cost, rounded up: what a hold reserves.

        Every prompt token is taken at the dearest of fresh, read and written, every reply token at the dearer of
        spoken and thought, and of all price lists that a prompt up to this length can fall under the dearest counts.

        Raises:
            UnpricedModel: the call may use a unit that the model is not known to be sold by.
            ValueError: a count is negative.
        """
        if min(input_tokens, output_tokens, images, audio_ms) < 0:
            raise ValueError(f"a bound cannot be negative: {input_tokens=}, {output_tokens=}, {images=}, {audio_ms=}")
        dearest = 0
        for above, end, rates in self._lists(batch).worst:
            if above == 0 or above < input_tokens:
                prompt = input_tokens if end is None else min(end, input_tokens)
                counts = (prompt, output_tokens, 0, 0, 0, images, audio_ms, 1)
                dearest = max(dearest, self._total(rates, counts))
        return -(-dearest // _MILLION)

    def differences(self, other: Price) -> tuple[Difference, ...]:
        """The rates that both prices state, and not alike: a tenth of a percent is taken for rounding."""
        return (
            *_differences(self.tiers, other.tiers, batch=False),
            *(_differences(self.batch, other.batch, batch=True) if self.batch and other.batch else ()),
        )

    def _lists(self, batch: bool) -> _InForce:
        return self._batch_in_force if batch else self._in_force

    def _total(self, rates: Rates, counts: tuple[int, ...]) -> int:
        """Nano-dollars times a million; ``counts`` in the order of the fields of Rates."""
        total = 0
        for unit, rate, count in zip(_UNITS, _by_unit(rates), counts, strict=True):
            if rate is not None:
                total += rate * count
            elif count:
                raise self._not_sold_by(unit)
        return total

    def _not_sold_by(self, unit: str) -> UnpricedModel:
        key = "audio_second" if unit == "audio" else unit
        return UnpricedModel(
            f"The price by {self.source} names nothing for '{unit}', which this call uses. Give the whole price in the "
            f"model's table of agentflow.toml: price = {{ input = 0.5, output = 1.5, {key} = 0.01 }}."
        )


def in_dollars(unit: str, rate: int) -> Decimal:
    """A rate as price lists state it: see ``Rates.dollars``, of which this is the inverse.

    Example:
        >>> in_dollars("input", 2_500_000_000), in_dollars("audio", 100_000_000)
        (Decimal('2.5'), Decimal('0.0001'))
    """
    return Decimal(rate) / _SCALE.get(unit, NANO)


def _worst(rates: Rates) -> Rates:
    dearest_in = _dearest(rates.input, rates.cache_read, rates.cache_write)
    return replace(rates, input=dearest_in, output=_dearest(rates.output, rates.reasoning))


def _for_prompt(tiers: Sequence[Tier], tokens: int) -> Rates:
    """The list of the last tier that a prompt of so many tokens has passed; the first one is for every prompt."""
    rates = tiers[0].rates
    for tier in tiers:
        if tokens > tier.above:
            rates = tier.rates
    return rates


def _differences(ours: tuple[Tier, ...], theirs: tuple[Tier, ...], *, batch: bool) -> list[Difference]:
    starts = [{tier.above for tier in tiers} for tiers in (ours, theirs)]
    # Without a list of its own a longer prompt costs as usual, but has no rebate known.
    shared = starts[0] & starts[1] if batch else starts[0] | starts[1]
    found: list[Difference] = []
    for above in sorted(shared):
        one, other = (_for_prompt(tiers, above + 1).stated() for tiers in (ours, theirs))
        found += [
            Difference(unit, above, batch, rate, other[unit])
            for unit, rate in one.items()
            if unit in other and abs(other[unit] - rate) * 1_000 > max(other[unit], rate)
        ]
    return found


def _rate(unit: str, dollars: Decimal | str) -> int:
    if unit not in _UNITS:
        raise TypeError(f"there is no unit '{unit}'; there are: {', '.join(_UNITS)}")
    exact = Decimal(dollars) * _SCALE.get(unit, NANO)
    rounded = int(exact.to_integral_value(ROUND_HALF_UP))
    return 1 if rounded == 0 and exact > 0 else rounded


def _first(rates: Iterable[int | None]) -> int | None:
    return next((rate for rate in rates if rate is not None), None)


def _dearest(*rates: int | None) -> int | None:
    return max((rate for rate in rates if rate is not None), default=None)


FREE_LOCAL = Price(
    (Tier(0, Rates(input=0, output=0, cache_read=0, cache_write=0, reasoning=0, image=0, audio=0, request=0)),),
    source="local: no price per token",
)
