"""Hedges on virtual time: who is asked twice, who wins, what it costs, and that a full server is never asked twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from agentflow.backends.openai_http import OpenAIBackend
from agentflow.budget.budget import Budget
from agentflow.budget.ledger import EntryFilter, MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.concurrency import ConcurrencyLimits
from agentflow.cascade.hedging import HedgeLimits, Hedges, Race
from agentflow.cascade.lane import Lane, LaneLimits
from agentflow.cascade.policy import Policy
from agentflow.cascade.rung import ModelRung
from agentflow.chain import Chain
from agentflow.energy.profiles import RemotePrior
from agentflow.errors import BackendUnavailable, CallFailed, ConfigError, LedgerError
from agentflow.messages import Completion, Delta, Message, Request
from benchmarks.hedging import Load, Strategy, simulate
from tests.cascade.simulated import COUNTER, PRICE, Simulated, Tell, chain, nothing_is_held, replies, simulated
from tests.servers.openai_server import ScriptedServer
from tests.virtual_time import now, run

HEDGED = LaneLimits(hedge=HedgeLimits(share=0.5))


def usual(then: Callable[[], float | Exception], calls: int = 25) -> Callable[[], float | Exception]:
    """First tokens after about a second, until the trigger knows them; then as told."""
    seen = 0

    def first_token_s() -> float | Exception:
        nonlocal seen
        seen += 1
        return 0.5 + 0.5 * (seen % 10) / 10 if seen <= calls else then()

    return first_token_s


async def warmed(it: Chain, calls: int = 25) -> Chain:
    for n in range(calls):
        await it.call("Who?", name=f"warm {n}")
    return it


def hedged(backend: Simulated, **more: object) -> ModelRung:
    return simulated("small", backend, HEDGED, **more)


def test_a_late_first_token_sends_a_second_attempt_and_the_first_to_reply_is_served() -> None:
    async def story() -> None:
        small = Simulated(usual(replies(300.0, 1.0)), decode_s=0.5)
        it = await warmed(chain(hedged(small), budget=Budget(usd="1")))
        began, spent = now(), it.spend
        reply = await it.call("Who?")
        lane = it.cascade.rungs[0].lane  # type: ignore[union-attr]
        delay = small.asked[-1] - began
        assert 0.85 <= delay <= 1.05, "the 90th percentile of what was seen"
        assert now() - began == pytest.approx(delay + 1.0 + 0.5)
        assert [(a.outcome, a.hedge) for a in reply.attempts] == [("cancelled", False), ("accepted", True)]
        assert reply.attempts[0].reason == "another attempt replied first"
        # Both were held and are charged: the winner for what it used, the other for the most it may have.
        first, second = reply.attempts
        assert first.in_doubt and not second.in_doubt
        assert first.spend.nano_usd > second.spend.nano_usd > 0
        assert it.spend.nano_usd == spent.nano_usd + reply.spend.nano_usd
        assert small.cancelled == [pytest.approx(began + delay + 1.0)], "as soon as the other has begun"
        entries = (await it._ledger.entries(EntryFilter()))[-2:]
        assert [entry.state for entry in entries] == ["in_doubt", "settled"]
        assert entries[1].key == entries[0].key + "|hedge"
        assert (lane.state().hedges, lane.state().hedges_won) == (1, 1)
        assert (reply.rung, reply.escalations) == ("small", 0)
        await nothing_is_held(it)

    run(story())


def test_a_first_attempt_that_begins_while_the_second_is_on_its_way_wins() -> None:
    async def story() -> None:
        small = Simulated(usual(replies(1.5, 300.0)), decode_s=0.5)
        it = await warmed(chain(hedged(small)))
        reply = await it.call("Who?")
        assert [(a.outcome, a.hedge) for a in reply.attempts] == [("cancelled", True), ("accepted", False)]
        assert it.cascade.rungs[0].lane.state().hedges_won == 0  # type: ignore[union-attr]
        await nothing_is_held(it)

    run(story())


def test_hedges_go_to_another_model_where_one_is_named() -> None:
    async def story() -> None:
        small, other = Simulated(usual(replies(300.0)), text="us"), Simulated(replies(1.0), text="eu")
        it = await warmed(chain(hedged(small, hedge_with=simulated("small-eu", other))))
        assert other.asked == []
        reply = await it.call("Who?")
        assert (reply.text, reply.rung) == ("eu", "small-eu")
        assert [(a.rung, a.outcome) for a in reply.attempts] == [("small", "cancelled"), ("small-eu", "accepted")]
        entry = (await it._ledger.entries(EntryFilter()))[-1]
        assert entry.labels.rung == "small-eu"
        await nothing_is_held(it)

    run(story())


def test_a_stream_has_the_pieces_of_the_winner_alone() -> None:
    async def story() -> None:
        small, other = Simulated(usual(replies(2.0)), text="us"), Simulated(replies(0.1), text="eu")
        it = await warmed(chain(hedged(small, hedge_with=simulated("small-eu", other))))
        async with it.stream("Who?") as stream:
            assert [piece async for piece in stream] == ["eu"]
        await nothing_is_held(it)

    run(story())


def test_an_attempt_that_fails_leaves_the_call_to_the_other() -> None:
    async def story() -> None:
        down = BackendUnavailable("503")
        small, other = Simulated(usual(replies(3.0, down))), Simulated(replies(down, 1.0))
        it = await warmed(chain(hedged(small, hedge_with=simulated("small-eu", other))))
        reply = await it.call("Who?")
        assert [(a.rung, a.outcome) for a in reply.attempts] == [("small-eu", "failed"), ("small", "accepted")]
        with pytest.raises(CallFailed):
            # It fails before it is late: there is nothing to hedge.
            await it.call("Who?")
        assert len(other.asked) == 1
        await nothing_is_held(it)

    run(story())


def test_without_room_for_both_there_is_no_hedge() -> None:
    async def story() -> None:
        small = Simulated(usual(replies(5.0)))
        rung = hedged(small)
        it = await warmed(chain(rung))
        quote = rung.quote(Request((Message("user", "Who?"),), max_output_tokens=100))
        tight = Chain(Meter("tight", Budget(tokens=quote.tokens + 50), clock=now), it.cascade, MemoryLedger())
        reply = await tight.call("Who?")
        assert [a.outcome for a in reply.attempts] == ["accepted"]
        assert rung.lane.state().hedges == 0
        assert now() > 5.0
        await nothing_is_held(tight)

    run(story())


def test_hedges_are_no_more_than_their_share_of_the_calls() -> None:
    async def story() -> None:
        small = Simulated(usual(replies(5.0), calls=40))
        it = chain(simulated("small", small, LaneLimits(hedge=HedgeLimits(share=0.05))))
        for n in range(400):
            await it.call("Who?", name=str(n))
        assert 0 < it.cascade.rungs[0].lane.state().hedges <= 0.05 * 400  # type: ignore[union-attr]

    run(story())


def test_a_full_lane_is_not_hedged() -> None:
    async def story() -> None:
        limits = LaneLimits(concurrency=ConcurrencyLimits(1, 1, 1), hedge=HedgeLimits(share=0.5))
        small = Simulated(usual(replies(5.0)))
        it = await warmed(chain(simulated("small", small, limits)))
        for n in range(5):
            await it.call("Who?", name=str(n))
        assert it.cascade.rungs[0].lane.state().hedges == 0  # type: ignore[union-attr]

    run(story())


def test_long_prompts_are_not_hedged() -> None:
    async def story() -> None:
        small = Simulated(usual(replies(5.0)))
        limits = LaneLimits(hedge=HedgeLimits(share=0.5, longest_prompt=100))
        it = await warmed(chain(simulated("small", small, limits)))
        await it.call("word " * 200)
        assert len(small.asked) == 26

    run(story())


def test_a_repeated_run_is_given_the_hedges_reply_and_goes_on_from_there() -> None:
    async def story() -> None:
        ledger = MemoryLedger()

        def job(small: Simulated) -> Chain:
            rung = simulated("small", small, HEDGED)
            return Chain(Meter("job", clock=now), Cascade("test", (rung,), Policy()), ledger)

        first = await warmed(job(Simulated(usual(replies(300.0, 1.0, 1.0)), text="4")))
        replied = await first.call("2 + 2?", output=int)
        again = Simulated(replies(1.0), text="5")
        repeated = job(again)
        reply = await repeated.call("2 + 2?", output=int)
        assert (reply.output, again.asked) == (replied.output, [])
        assert [(a.outcome, a.hedge, a.replayed) for a in reply.attempts] == [
            ("cancelled", False, True),
            ("accepted", True, True),
        ]
        assert repeated.spend.nano_usd == 0

    run(story())


def test_a_repeated_run_is_given_the_hedges_reply_though_the_first_attempt_was_never_taken() -> None:
    async def story() -> None:
        ledger = MemoryLedger()

        def job(small: Simulated, other: Simulated) -> Chain:
            rung = hedged(small, hedge_with=simulated("small-eu", other))
            return Chain(Meter("job", clock=now), Cascade("test", (rung,), Policy()), ledger)

        class Refuses(Simulated):
            """A server that says, after a long while, that it took nothing."""

            async def complete(self, model: str, request: Request, tell: Tell = None) -> Completion:
                completion = await super().complete(model, request)
                if len(self.asked) > 25:
                    raise BackendUnavailable("503")
                return completion

        first = await warmed(job(Refuses(usual(replies(2.0))), Simulated(replies(3.0), text="4")))
        reply = await first.call("2 + 2?", output=int)
        assert [(a.rung, a.outcome) for a in reply.attempts] == [("small", "failed"), ("small-eu", "accepted")]
        again = Simulated(replies(1.0), text="5")
        repeated = job(again, again)
        assert (await repeated.call("2 + 2?", output=int)).output == 4
        assert (again.asked, repeated.spend.nano_usd) == ([], 0)

    run(story())


def test_a_second_attempt_that_cannot_be_made_leaves_the_call_to_the_first() -> None:
    async def story() -> None:
        small, other = Simulated(usual(replies(3.0))), Simulated(replies(ConfigError("No model file.")))
        it = await warmed(chain(hedged(small, hedge_with=simulated("small-eu", other))))
        reply = await it.call("Who?")
        assert (reply.rung, len(other.asked)) == ("small", 1)
        await nothing_is_held(it)

    run(story())


def test_a_call_that_is_given_up_takes_both_attempts_along() -> None:
    async def story() -> None:
        small = Simulated(usual(replies(300.0)))
        it = await warmed(chain(hedged(small)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await it.call("Who?")
        assert (len(small.asked), len(small.cancelled), small.running) == (27, 2, 0)
        await nothing_is_held(it)

    run(story())


def test_what_a_loser_raises_as_it_ends_does_not_take_the_reply_away() -> None:
    async def story() -> None:
        async def sore_loser(tell: Callable[[Delta], None]) -> str | None:
            try:
                await asyncio.sleep(60)
            finally:
                raise LedgerError("the disk is full")

        async def winner(tell: Callable[[Delta], None]) -> str | None:
            return "reply"

        assert await Race[str]().run(sore_loser, winner, 1.0, lambda: True) == "reply"
        with pytest.raises(LedgerError):
            await Race[str]().run(sore_loser, winner, None, lambda: True)

    run(story())


def test_hedges_save_up_a_few_and_give_back_what_never_left() -> None:
    hedges = Hedges(HedgeLimits(share=0.05))
    assert not hedges.take()
    for _ in range(1_000):
        hedges.called()
    assert [hedges.take() for _ in range(6)] == [True] * 5 + [False]
    hedges.put_back()
    assert hedges.made == 4
    assert hedges.take()


@pytest.mark.parametrize("seed", range(30))
def test_in_any_race_there_is_one_winner_and_only_its_pieces_are_told(seed: int) -> None:
    async def story() -> None:
        rng, told = random.Random(seed), list[str]()
        race: Race[str] = Race(lambda delta: told.append(delta.text))
        ended = list[str]()

        async def attempt(name: str, tell: Callable[[Delta], None]) -> str | None:
            try:
                await asyncio.sleep(rng.random())
                for _ in range(rng.randrange(4)):
                    tell(Delta(name))
                    await asyncio.sleep(rng.random() / 10)
                return name if rng.random() < 0.7 else None
            finally:
                ended.append(name)

        got = await race.run(
            lambda tell: attempt("first", tell), lambda tell: attempt("second", tell), rng.random() / 2, lambda: True
        )
        assert len(set(told)) <= 1
        if got is not None:
            assert race.winner == ["first", "second"].index(got)
            assert set(told) <= {got}
        assert len(ended) == len(set(ended)) == len(race._tasks)

    run(story())


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.89])
def test_with_its_cap_a_hedge_cuts_the_tail_and_no_load_collapses(load: float) -> None:
    plain = simulate(Load(load, requests=8_000), Strategy())
    capped = simulate(Load(load, requests=8_000), Strategy(quantile=0.9, share=0.05))
    assert capped.p95 < 0.9 * plain.p95
    assert capped.p50 < 1.5 * plain.p50
    assert capped.hedged <= 0.051
    assert capped.work < 1.05 * plain.work


def test_a_fixed_delay_without_cap_and_cancellation_collapses() -> None:
    """The negative control: the simulation can lose, and does where it must."""
    plain = simulate(Load(0.7, requests=8_000), Strategy())
    long = Load(0.7, requests=30_000)
    collapsed = simulate(long, Strategy(delay=plain.p90, cancel=False))
    assert collapsed.hedged > 0.5
    assert collapsed.p50 > 20 * plain.p50
    # The same delay with the cap and cancellation does no harm.
    assert simulate(long, Strategy(delay=plain.p90, share=0.05)).p95 < plain.p95


async def test_over_a_real_server_the_loser_is_hung_up_on(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"text": "late", "gate": "never"}, {"text": "early"}]})
    backend = OpenAIBackend(scripted_server.url, COUNTER.usage, retries=0)
    lane = Lane(LaneLimits(hedge=HedgeLimits(share=0.5)))
    assert lane.hedges is not None
    for _ in range(20):
        lane.hedges.called()
        lane.hedges.saw(0.01)
    rung = ModelRung("small", backend, "small", PRICE, RemotePrior(), COUNTER, lane=lane)
    it = Chain(Meter("chain"), Cascade("test", (rung,), Policy()), MemoryLedger())
    reply = await it.call("Who?")
    assert (reply.text, lane.state().hedges_won) == ("early", 1)
    assert {(a.outcome, a.hedge) for a in reply.attempts} == {("cancelled", False), ("accepted", True)}
    while not await asyncio.to_thread(scripted_server.disconnects):
        pass
    await nothing_is_held(it)
    await backend.aclose()
