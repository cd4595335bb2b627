"""What is learned from outcomes: better than any one rung, the same live as in bulk, nothing without labels."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from agentflow.cascade.outcomes import Outcome, TriedRung
from agentflow.cascade.routing.evidence import Evidence, Node, one_of, rungs_worth_asking
from agentflow.cascade.routing.examples import Examples
from agentflow.cascade.routing.fixed import FixedOrder
from agentflow.cascade.routing.learned import LEAST_LABELS, LearnedEstimator, Prices
from agentflow.cascade.routing.plan import Graph, choose_steps
from agentflow.cascade.routing.state import Abstain, Expected, Probe, Seen, State, Stop, Try, Worth
from agentflow.cascade.routing.utility import ExpectedUtility
from tests.cascade.routing.states import COSTS, PRICES, WORTH, examples, seen, state, unlearned

TASKS = ("easy", "hard")


def climb(
    policy: ExpectedUtility, asked: Examples, row: int, signal: Expected | None = None, worth: Worth = WORTH
) -> tuple[float, float]:
    """One question, live: how good what was served is, and what it cost."""
    cost, attempts = 0.0, list[Seen]()
    while True:
        features = asked.features[row] if asked.features else ()
        shown = state(*attempts, task=asked.task[row], signal=signal, worth=worth, features=features)
        chosen = policy.choose(shown)
        match chosen:
            case Try(rung):
                confidence = float(asked.confidence[row, rung]) if signal is None else None
                attempts.append(seen(rung, confidence, str(asked.answers[row, rung])))
                cost += COSTS[rung].usd
            case Probe(place):
                read = replace(attempts[place].verdict, confidence=float(asked.confidence[row, attempts[place].rung]))
                attempts[place] = replace(attempts[place], verdict=read)
                cost += 0.0 if signal is None else signal.usd
            case Stop(place):
                return float(asked.good[row, attempts[place].rung]), cost
            case Abstain():
                return 0.0, cost


def utility(found: list[tuple[float, float]], worth: Worth) -> float:
    return float(np.mean([good - cost / worth.good for good, cost in found]))


@pytest.mark.parametrize("good", [2e-4, 5e-4, 2e-3])
def test_a_learned_climb_beats_every_single_rung(good: float) -> None:
    worth, asked = Worth(good=good), examples(400, seed=1)
    policy = ExpectedUtility(LearnedEstimator(examples(), PRICES, worth))
    learned = utility([climb(policy, asked, row, worth=worth) for row in range(len(asked))], worth)
    for rung, cost in enumerate(COSTS):
        assert learned > asked.good[:, rung].mean() - cost.usd / worth.good


def test_a_learned_climb_beats_the_fixed_order_when_good_replies_are_worth_little() -> None:
    worth, asked = Worth(good=5e-4), examples(400, seed=1)
    policy = ExpectedUtility(LearnedEstimator(examples(), PRICES, worth))
    fixed = ExpectedUtility(None, fallback=FixedOrder(0.7))
    learned, ordered = (
        utility([climb(one, asked, row, worth=worth) for row in range(len(asked))], worth) for one in (policy, fixed)
    )
    assert learned > ordered


@pytest.mark.parametrize("told", [False, True])
def test_live_steps_are_the_steps_of_the_bulk_walk(told: bool) -> None:
    learned = LearnedEstimator(examples(told=told), PRICES, WORTH)
    asked, policy = examples(60, seed=2, told=told), ExpectedUtility(learned)
    plan = learned._plans[True]
    price = np.broadcast_to([cost.usd / WORTH.good for cost in COSTS], asked.good.shape)
    about = one_of(asked.task, TASKS)
    if learned._prior is not None:
        about = np.hstack([about, learned._prior.chances(np.array(asked.features), about)])
    evidence = Evidence(asked.confidence, asked.answers, about, price, np.zeros_like(price))
    for node in plan.graph.nodes():
        steps = plan.graph.steps(node)
        if not steps:
            continue
        served = plan.posterior.served(node, evidence)
        prices = np.stack([step.price(evidence) for step in steps], axis=1)
        chosen = choose_steps(plan.gains(node, served, evidence) - prices, node)
        for row, bulk in enumerate(chosen):
            attempts = [
                seen(rung, float(asked.confidence[row, rung]), str(asked.answers[row, rung])) for rung in node.asked
            ]
            features = asked.features[row] if told else ()
            live = policy.choose(state(*attempts, task=asked.task[row], features=features))
            if bulk < 0:
                assert isinstance(live, Stop)
                assert attempts[live.seen].rung == served.rung[row]
            else:
                assert isinstance(live, Try) and live.rung == steps[bulk].rung


def test_a_signal_that_costs_as_much_as_the_large_rung_is_never_read() -> None:
    asked = examples(100, seed=3)
    dear = Expected(usd=3e-4)
    policy = ExpectedUtility(LearnedEstimator(examples(), Prices(COSTS, (dear,) * 3), WORTH))
    costs = [climb(policy, asked, row, dear)[1] for row in range(len(asked))]
    assert max(costs) <= COSTS[1].usd + COSTS[2].usd


def test_a_signal_that_costs_little_is_read() -> None:
    little = Expected(usd=1e-6)
    policy = ExpectedUtility(LearnedEstimator(examples(), Prices(COSTS, (little,) * 3), WORTH))
    first = policy.choose(state(task="hard"))
    assert isinstance(first, Try)
    assert isinstance(policy.choose(state(seen(first.rung, None, "a"), task="hard", signal=little)), Probe)


def test_without_labels_the_fixed_order_decides() -> None:
    learned = LearnedEstimator(examples(LEAST_LABELS - 1), PRICES, WORTH)
    assert learned.served(state()) is None
    assert ExpectedUtility(learned).choose(state()) == unlearned(FixedOrder().choose(state()))


@pytest.mark.parametrize(
    "strange",
    [
        state(seen(0, 0.9, valid=False)),
        state(seen(0, None)),
        replace(state(), rungs=state().rungs[:2]),
        state(*(seen(rung, 0.1, str(rung)) for rung in range(3))),
    ],
    ids=["not valid", "no signal", "other rungs", "further than the plan"],
)
def test_where_no_plan_goes_the_fixed_order_decides(strange: State) -> None:
    policy = ExpectedUtility(LearnedEstimator(examples(), PRICES, WORTH))
    assert policy.choose(strange) == unlearned(FixedOrder().choose(strange))


def test_a_task_without_labels_has_a_plan_of_its_own() -> None:
    learned = LearnedEstimator(examples(), PRICES, WORTH)
    easy, hard, other = (learned.served(state(seen(0, 0.7, "a"), task=task)) for task in ("easy", "hard", "never seen"))
    assert easy is not None and hard is not None and other is not None
    assert hard[1] < other[1] < easy[1]


def test_agreement_raises_the_chance_and_a_contradiction_lowers_it() -> None:
    learned = LearnedEstimator(examples(), PRICES, WORTH)
    alone = learned.served(state(seen(0, 0.6, "a")))
    agreed = learned.served(state(seen(0, 0.6, "a"), seen(1, 0.6, "a")))
    differ = learned.served(state(seen(0, 0.6, "a"), seen(1, 0.6, "b")))
    assert alone is not None and agreed is not None and differ is not None
    assert differ[1] < agreed[1] and alone[1] < agreed[1]


def test_a_calibrated_confidence_does_not_hide_the_signal_it_came_from() -> None:
    learned = LearnedEstimator(examples(), PRICES, WORTH)
    calibrated = replace(seen(0, 0.2, "a"), signal=0.9)
    assert learned.served(state(calibrated)) == learned.served(state(seen(0, 0.9, "a")))


def test_useless_rungs_are_left_out() -> None:
    found = examples()
    worse = np.column_stack([found.good, found.good[:, 0]])
    cost = np.broadcast_to([1.0, 5.0, 30.0, 31.0], worse.shape)
    assert rungs_worth_asking(worse, cost) == (0, 1, 2)


def test_a_graph_leads_from_the_start_to_ends_only() -> None:
    for free in (True, False):
        graph = Graph((0, 1, 2), free=free, depth=2)
        nodes = graph.nodes()
        assert nodes[-1] == Node()
        for place, node in enumerate(nodes):
            assert all(nodes.index(step.to) < place for step in graph.steps(node)), "what follows is solved first"


def test_examples_are_the_outcomes_that_every_rung_answered() -> None:
    def outcome(*tried: tuple[str, float | None, str | None], score: float = 1.0) -> Outcome:
        rungs = tuple(TriedRung(rung=rung, signal=signal, answer=answer) for rung, signal, answer in tried)
        return Outcome(at=datetime.now(UTC), cascade="c", task="easy", served=tried[-1][0], score=score, tried=rungs)

    whole = outcome(("small", 0.4, "a"), ("large", 0.9, "b"))
    found = Examples.gather(
        [
            whole,
            outcome(("small", 0.4, "a")),
            outcome(("small", None, "a"), ("large", 0.9, "b")),
            outcome(("small", 0.4, "a"), ("large", 0.9, "b"), score=0.0),
        ],
        ("small", "large"),
    )
    assert len(found) == 1, "the last one's small rung may have been right or wrong"
    assert (found.good.tolist(), found.confidence.tolist()) == ([[0.0, 1.0]], [[0.4, 0.9]])
    assert found.answers[0, 0] != found.answers[0, 1]
    assert len(Examples.gather([], ("small", "large"))) == 0


def test_what_the_question_tells_moves_the_first_step() -> None:
    worth = Worth(good=1e-3)
    policy = ExpectedUtility(LearnedEstimator(examples(told=True), PRICES, worth))
    likely, unlikely = (policy.choose(state(task="hard", worth=worth, features=(ease, 0.0))) for ease in (4.0, -4.0))
    assert isinstance(likely, Try) and isinstance(unlikely, Try)
    assert likely.rung < unlikely.rung


def test_a_climb_that_is_told_numbers_of_the_question_is_worth_more() -> None:
    worth, asked = Worth(good=2e-4), examples(400, seed=1, told=True)
    policies = [ExpectedUtility(LearnedEstimator(examples(told=told), PRICES, worth)) for told in (False, True)]
    untold, told = (
        utility([climb(policy, asked, row, worth=worth) for row in range(len(asked))], worth) for policy in policies
    )
    assert told > untold


def test_a_question_without_its_numbers_is_judged_by_replies_alone() -> None:
    learned = LearnedEstimator(examples(told=True), PRICES, WORTH)
    assert learned.reads_questions
    reply = seen(0, 0.7, "a")
    assert learned.served(state(reply, task="hard")) == learned.served(state(reply, task="never seen"))


def test_where_a_good_reply_is_worth_more_more_is_spent() -> None:
    asked = examples(150, seed=4)
    spent: list[float] = []
    for good in (1e-4, 1e-3, 1e-2):
        worth = Worth(good=good)
        policy = ExpectedUtility(LearnedEstimator(examples(), PRICES, worth))
        spent.append(sum(climb(policy, asked, row, worth=worth)[1] for row in range(len(asked))))
    assert spent == sorted(spent)
    assert spent[0] < spent[-1] / 5
