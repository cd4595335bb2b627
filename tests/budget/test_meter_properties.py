"""Any order of holds, settles, releases, shares and crashes over any tree: nothing is ever promised twice."""

from __future__ import annotations

import itertools
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agentflow.budget.account import Account
from agentflow.budget.budget import Budget
from agentflow.budget.currency import COUNTED
from agentflow.budget.hold import Hold
from agentflow.budget.ledger import Opening
from agentflow.budget.ledger.audit import audit
from agentflow.budget.ledger.base import AccountState
from agentflow.budget.ledger.operations import Books, Close, Doubt, Open, Operation, Reconcile
from agentflow.budget.meter import Meter
from agentflow.budget.spend import Emissions, Quote, Spend
from agentflow.energy.interval import Energy
from agentflow.errors import BudgetExceeded
from agentflow.messages import TokenUsage

amounts = st.integers(0, 400)
limits = st.none() | st.integers(1, 1_000)
budgets = st.builds(
    lambda tokens, usd, joules, grams, calls: Budget(
        tokens=tokens,
        usd=None if usd is None else f"{usd / 10**9:.9f}",
        joules=None if joules is None else joules / 1e6,
        grams_co2e=None if grams is None else grams / 1e6,
        calls=calls,
    ),
    limits, limits, limits, limits, limits,
)  # fmt: skip
quotes = st.builds(Quote, amounts, amounts, amounts, st.just(0.0), amounts, st.integers(0, 5))


def used(quote: Quote, part: float) -> Spend:
    """What a call of this quote used: a part of it, in every currency."""
    tokens, nano_usd, micro, grams, calls = (int(amount * part) for amount in quote.amounts)
    joules = micro / 1e6
    return Spend(
        calls, TokenUsage(tokens), nano_usd, Energy(joules, joules, joules), co2e=Emissions(grams, grams, grams)
    )


class MeterMachine(RuleBasedStateMachine):
    """A budget tree beside a ledger's books, as a process keeps both; a crash leaves the books alone."""

    @initialize(budget=budgets)
    def start(self, budget: Budget) -> None:
        self.books = Books()
        self.keys = itertools.count()
        self.run = 0
        self.nodes = [Meter("job", budget, clock=lambda: 0.0)]
        self.open: list[tuple[Hold, str]] = []
        self.settled: list[tuple[Meter, Spend]] = []
        self.strict = True

    @rule(data=st.data(), budget=budgets)
    def child(self, data: st.DataObject, budget: Budget) -> None:
        parent = data.draw(st.sampled_from(self.nodes))
        self.nodes.append(parent.child(f"n{next(self.keys)}", budget))

    @rule(data=st.data(), share=st.floats(0.01, 1))
    def shared_child(self, data: st.DataObject, share: float) -> None:
        parent = data.draw(st.sampled_from(self.nodes))
        self.nodes.append(parent.child(f"s{next(self.keys)}", share=share))

    @rule(data=st.data(), quote=quotes)
    def hold(self, data: st.DataObject, quote: Quote) -> None:
        node = data.draw(st.sampled_from([node for node in self.nodes if node.statistics()]))
        fits = node.room().fits(quote)
        try:
            hold = node.hold(quote)
        except BudgetExceeded:
            assert not fits
            return
        assert fits
        key = str(next(self.keys))
        self.apply(Open(Opening(key, node.path, quote, node.recorded_limits), str(self.run), 1))
        self.open.append((hold, key))

    @rule(data=st.data(), part=st.floats(0, 1))
    def settle(self, data: st.DataObject, part: float) -> None:
        if self.open:
            hold, key = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            spend = used(hold.quote, part)
            hold.settle(spend)
            self.apply(Close(key, str(self.run), "settled", spend))
            self.settled.append((cast("Meter", hold.node), spend))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.open:
            hold, key = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            hold.release()
            self.apply(Close(key, str(self.run), "released"))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A child ends: what is left of its share flows back, even while its own calls are in flight."""
        if len(self.nodes) > 1:
            node = data.draw(st.sampled_from(self.nodes[1:]))
            gone = set(map(id, node.walk()))
            for one in node.walk():
                one.close()
            self.nodes = [one for one in self.nodes if id(one) not in gone]

    @rule()
    def crash(self) -> None:
        """The process is gone; the next one charges what it held, and goes on from the books."""
        root = self.nodes[0]
        held = tuple(key for _, key in self.open)
        self.apply(Doubt(held, {str(self.run)}))
        self.run += 1
        self.open, self.settled = [], []
        self.nodes = [Meter("job", root.budget, clock=lambda: 0.0)]
        known = self.books.accounts.get("job")
        if known is not None:
            self.nodes[0].carry({"job": known.spent})

    @rule(data=st.data(), part=st.floats(0, 1))
    def reconcile(self, data: st.DataObject, part: float) -> None:
        doubted = [entry for entry in self.books.entries.values() if entry.state == "in_doubt"]
        if doubted:
            entry = data.draw(st.sampled_from(doubted))
            self.apply(Reconcile(entry.key, used(entry.held, part), "bill"))

    def apply(self, operation: Operation) -> Any:
        return operation.apply(self.books, 0)

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        for node in self.nodes:
            facts = node.statistics()
            for limit, spent, held, granted in zip(
                facts.limits, node._account.spent, facts.held, facts.granted, strict=True
            ):
                assert min(spent, held) >= 0
                assert limit is None or spent + held + granted <= limit
        for account in self.books.accounts.values():
            self.within(account)

    @staticmethod
    def within(account: Account) -> None:
        for limit, spent, held in zip(account.limits, account.spent, account.held, strict=True):
            assert min(spent, held) >= 0
            assert limit is None or spent + held <= limit

    @invariant()
    def every_node_sums_its_leaves(self) -> None:
        for node in self.nodes:
            below = set(map(id, node.walk()))
            spent = [spend.amounts for owner, spend in self.settled if id(owner) in below]
            held = [hold.quote.amounts for hold, _ in self.open if id(hold.node) in below]
            for place in range(len(COUNTED)):
                assert node.spent.amounts[place] == sum(amounts[place] for amounts in spent)
                assert node.statistics().held[place] == sum(amounts[place] for amounts in held)

    @invariant()
    def the_books_equal_a_recount(self) -> None:
        states = [AccountState(account) for account in self.books.accounts.values()]
        assert audit(self.books.entries.values(), states) == []


MeterMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMeterMachine = MeterMachine.TestCase
