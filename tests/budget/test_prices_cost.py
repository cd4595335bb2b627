"""What a price says a call costs, and the most it can."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentflow.budget.money import decimal_text, format_usd, nano_from_decimal
from agentflow.budget.price import FREE_LOCAL, Price, Rates, Tier
from agentflow.errors import UnpricedModel
from agentflow.messages import TokenUsage

counts = st.integers(0, 500_000)
amounts = st.integers(0, 100)
rates = st.integers(0, 100_000_000_000)
gaps = st.none() | rates
price_lists = st.builds(Rates, rates, rates, gaps, gaps, gaps, rates, rates, gaps)
# Lists of longer prompts and of the batch interface may leave anything out.
partial_lists = st.builds(Rates, gaps, gaps, gaps, gaps, gaps, gaps, gaps, gaps)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    starts = sorted(draw(st.sets(st.integers(1, 400_000), max_size=4)))
    usual = (Tier(0, draw(price_lists)), *(Tier(start, draw(partial_lists)) for start in starts))
    others = sorted(draw(st.sets(st.integers(1, 400_000), max_size=2)))
    batch = (Tier(0, draw(partial_lists)), *(Tier(start, draw(partial_lists)) for start in others))
    return Price(usual, draw(st.sampled_from([(), batch])))


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    prompt, reply = draw(counts), draw(counts)
    read = draw(st.integers(0, prompt))
    write = draw(st.integers(0, prompt - read))
    return TokenUsage(prompt, reply, read, write, draw(st.integers(0, reply)))


@given(prices(), usages(), amounts, counts, st.booleans(), st.tuples(counts, counts, amounts, counts))
@example(
    # A cheaper list for longer prompts: the dearest call within the bounds has a shorter one.
    Price((Tier(0, Rates(10**9, 0, image=0, audio=0)), Tier(100, Rates(1, 0)))),
    TokenUsage(100, 0), 0, 0, False, (1, 0, 0, 0),
)  # fmt: skip
def test_no_call_within_the_bounds_costs_more_than_the_ceiling(
    price: Price, usage: TokenUsage, images: int, audio_ms: int, batch: bool, room: tuple[int, int, int, int]
) -> None:
    cost = price.cost(usage, images=images, audio_ms=audio_ms, batch=batch)
    tight = price.ceiling(usage.input, usage.output, images=images, audio_ms=audio_ms, batch=batch)
    more, longer, pictures, sound = room
    wide = price.ceiling(
        usage.input + more, usage.output + longer, images=images + pictures, audio_ms=audio_ms + sound, batch=batch
    )
    assert isinstance(cost, int)
    assert 0 <= cost <= tight <= wide


@given(price_lists, usages(), counts, counts, amounts)
def test_more_of_anything_never_costs_less(
    rates: Rates, usage: TokenUsage, more: int, longer: int, images: int
) -> None:
    grown = TokenUsage(
        usage.input + more, usage.output + longer, usage.cached_input, usage.cache_write, usage.reasoning
    )
    price = Price((Tier(0, rates),))
    assert price.cost(grown, images=images) >= price.cost(usage)


@given(prices(), usages())
def test_the_batch_interface_costs_as_usual_when_no_rebate_is_known(price: Price, usage: TokenUsage) -> None:
    plain = Price(price.tiers)
    assert plain.cost(usage, batch=True) == plain.cost(usage)
    assert plain.ceiling(usage.input, usage.output, batch=True) == plain.ceiling(usage.input, usage.output)


def dollars(**rates: str) -> Price:
    return Price((Tier(0, Rates.dollars(**rates)),))


def test_a_price_that_nobody_states_is_the_full_price() -> None:
    price = dollars(input="2", output="4")
    assert price.cost(TokenUsage(1_000_000, 0, cached_input=1_000_000)) == 2_000_000_000
    assert price.cost(TokenUsage(1_000_000, 0, cache_write=1_000_000)) == 2_000_000_000
    assert price.cost(TokenUsage(0, 1_000_000, reasoning=1_000_000)) == 4_000_000_000


def test_a_price_that_is_stated_is_taken_at_its_word() -> None:
    dear = dollars(input="3", output="15", cache_write="3.75", reasoning="20")
    assert dear.cost(TokenUsage(1_000_000, 0, cache_write=1_000_000)) == 3_750_000_000
    assert dear.cost(TokenUsage(0, 1_000_000, reasoning=400_000)) == 600_000 * 15_000 + 400_000 * 20_000
    cheap = dollars(input="3", output="15", cache_write="0.5")
    assert cheap.cost(TokenUsage(1_000_000, 0, cache_write=1_000_000)) == 500_000_000


def test_every_unit_has_its_rate() -> None:
    price = dollars(input="1", output="2", image="0.04", audio="0.0001", request="0.005")
    assert price.cost(TokenUsage()) == 5_000_000
    assert price.cost(TokenUsage(1_000, 500), images=3, audio_ms=90_000) == (
        1_000_000 + 1_000_000 + 3 * 40_000_000 + 90 * 100_000 + 5_000_000
    )
    assert price.ceiling(1_000, 500, images=3, audio_ms=90_000) == 136_000_000


@pytest.mark.parametrize(
    ("prompt", "nano_usd"), [(32_000, 32_000_000), (32_001, 64_002_000), (128_000, 256_000_000), (128_001, 384_003_000)]
)
def test_the_length_of_the_prompt_chooses_among_any_number_of_price_lists(prompt: int, nano_usd: int) -> None:
    lists = (Tier(0, Rates.dollars(input="1", output="5")), Tier(32_000, Rates.dollars(input="2", output="10")))
    price = Price((*lists, Tier(128_000, Rates.dollars(input="3", output="15"))))
    assert price.cost(TokenUsage(prompt, 0)) == nano_usd
    assert price.ceiling(prompt, 0) == nano_usd


def test_a_gap_in_the_list_of_longer_prompts_costs_the_dearer_of_its_full_price_and_the_usual_one() -> None:
    usual = Rates.dollars(input="1", output="2", cache_read="0.1", cache_write="9")
    price = Price((Tier(0, usual), Tier(1_000, Rates.dollars(input="3", output="6"))))
    assert price.cost(TokenUsage(1_000_000, 0, cached_input=1_000_000)) == 3_000_000_000
    assert price.cost(TokenUsage(1_000_000, 0, cache_write=1_000_000)) == 9_000_000_000


def test_a_gap_in_the_list_of_a_batch_looks_at_the_usual_list_for_a_prompt_of_that_length() -> None:
    usual = (
        Tier(0, Rates.dollars(input="1", output="2")),
        Tier(1_000, Rates.dollars(input="2", output="4", image="7")),
    )
    price = Price(usual, (Tier(0, Rates.dollars(input="1")), Tier(1_000, Rates.dollars(input="1"))))
    assert price.cost(TokenUsage(1_001, 1_000_000), batch=True) == 1_001_000 + 4_000_000_000
    assert price.cost(TokenUsage(1_001, 0), images=1, batch=True) == 1_001_000 + 7_000_000_000


def test_a_long_prompt_of_a_batch_costs_as_usual_when_only_short_ones_have_a_rebate() -> None:
    usual = (Tier(0, Rates.dollars(input="2", output="4")), Tier(1_000, Rates.dollars(input="4", output="8")))
    price = Price(usual, (Tier(0, Rates.dollars(input="1", output="2")),))
    assert price.cost(TokenUsage(1_000, 0), batch=True) == 1_000_000
    assert price.cost(TokenUsage(2_000, 0), batch=True) == price.cost(TokenUsage(2_000, 0)) == 8_000_000


@pytest.mark.parametrize(("unit", "images", "audio_ms"), [("image", 1, 0), ("audio_second", 0, 1)])
def test_a_unit_without_a_price_is_refused_before_the_call_and_after(unit: str, images: int, audio_ms: int) -> None:
    price = Price.per_million("1", "2", source="a table")
    with pytest.raises(UnpricedModel, match=rf"a table .*{unit} = "):
        price.ceiling(10, 10, images=images, audio_ms=audio_ms)
    with pytest.raises(UnpricedModel, match=rf"a table .*{unit} = "):
        price.cost(TokenUsage(10, 10), images=images, audio_ms=audio_ms)


def test_a_model_sold_by_the_second_is_not_sold_by_the_token() -> None:
    price = dollars(audio="0.0001")
    assert price.cost(TokenUsage(), audio_ms=60_000) == 6_000_000
    with pytest.raises(UnpricedModel):
        price.ceiling(1, 0)


@pytest.mark.parametrize(
    "usage",
    [
        TokenUsage(-1, 0),
        TokenUsage(0, -1),
        TokenUsage(5, 5, -1),
        TokenUsage(5, 5, 0, -1),
        TokenUsage(5, 5, reasoning=-1),
    ],
)
def test_a_negative_count_is_refused(usage: TokenUsage) -> None:
    with pytest.raises(ValueError, match="negative"):
        Price.per_million("1", "2", source="test").cost(usage)


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        FREE_LOCAL.ceiling(-1, 0)


def test_halves_of_a_nano_dollar_settle_upwards_and_any_part_of_one_is_held() -> None:
    assert Price((Tier(0, Rates(500_000, 0)),)).cost(TokenUsage(1, 0)) == 1
    assert Price((Tier(0, Rates(499_999, 0)),)).cost(TokenUsage(1, 0)) == 0
    assert Price((Tier(0, Rates(1, 0)),)).ceiling(1, 0) == 1


def test_no_price_is_so_small_that_it_rounds_to_nothing() -> None:
    assert Rates.dollars(input="0.0000000000001").input == 1


def test_a_price_that_pays_the_caller_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Rates(1, -1)
    with pytest.raises(ValueError, match="negative"):
        Rates.dollars(input="1", cache_read="-5")


@pytest.mark.parametrize("starts", [(), (5,), (0, 10, 10), (0, 20, 10)])
def test_price_lists_begin_at_nothing_and_ascend(starts: tuple[int, ...]) -> None:
    tiers = tuple(Tier(start, Rates(1, 1)) for start in starts)
    with pytest.raises(ValueError, match="ascend"):
        Price(tiers)
    if starts:
        with pytest.raises(ValueError, match="ascend"):
            Price((Tier(0, Rates(1, 1)),), tiers)


def test_a_unit_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="'inputs'"):
        Rates.dollars(inputs="1")


def test_prices_tell_where_they_disagree_and_a_gap_is_no_disagreement() -> None:
    one = Price((Tier(0, Rates(3, 15, 1)), Tier(200, Rates(6, 22))), (Tier(0, Rates(2, 7)),))
    other = Price((Tier(0, Rates(3, 15, cache_write=4)),), (Tier(0, Rates(2, 8)),))
    told = [(each.unit, each.above, each.batch, each.ours, each.theirs) for each in one.differences(other)]
    assert told == [("input", 200, False, 6, 3), ("output", 200, False, 22, 15), ("output", 0, True, 7, 8)]
    assert one.differences(one) == ()


def test_a_model_in_this_process_has_no_price_of_any_unit() -> None:
    assert FREE_LOCAL.ceiling(10**9, 10**9, images=10**9, audio_ms=10**9, batch=True) == 0


@pytest.mark.parametrize(
    ("nano", "shown"),
    [
        (0, "$0"), (1, "$0.000000001"), (3_100_000, "$0.0031"), (250_000_000, "$0.25"), (999_999_999, "$1.00"),
        (12_400_000_000, "$12.40"), (1_234_567_890_000, "$1,234.57"),
    ],
)  # fmt: skip
def test_money_prints_for_people(nano: int, shown: str) -> None:
    assert format_usd(nano) == shown


@given(st.integers(0, 10**15))
def test_money_as_text_is_exact(nano: int) -> None:
    assert nano_from_decimal(Decimal(decimal_text(nano))) == nano
    assert (format_usd(nano) == "$0") == (nano == 0)
