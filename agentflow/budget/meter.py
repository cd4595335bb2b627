"""Meter: the budget tree tenant -> job -> chain -> agent, which holds before a call and settles after it.

A hold checks every account of the node and its ancestors and reserves at all of them, or at none: it is one
synchronous step under the tree's lock, so neither tasks nor threads can slip between the check and the reservation.
In memory; what must outlive the process is in ``ledger``. Next: ``line``, ``account``, ``pacer``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agentflow.budget.account import Account, fits_in
from agentflow.budget.appeals import Appeals
from agentflow.budget.budget import Budget, OnExceed
from agentflow.budget.currency import COUNTED, NOTHING, Amounts, Currency, Limits, amount_text
from agentflow.budget.events import Ask, Listener, Question
from agentflow.budget.hold import Hold
from agentflow.budget.line import Grant, Line, Step, as_amounts, closing, dearer, exceeded, refusal
from agentflow.budget.pacer import Pacer
from agentflow.budget.room import Room
from agentflow.budget.spend import Quote, Spend
from agentflow.budget.tally import Tally
from agentflow.budget.tree import Clock, Tree
from agentflow.budget.windows import Calendar, Window, utc_now
from agentflow.errors import BudgetExceeded, Refusal, UsageError
from agentflow.messages import writable


@dataclass(frozen=True, slots=True)
class MeterStatistics:
    """A snapshot of one node: what it may spend, spent, holds and has set aside, and how its holds ended."""

    path: str
    limits: Limits
    spent: Spend
    held: Amounts
    granted: Amounts
    open_holds: int
    refused: int
    overruns: int
    closed: str


@dataclass(frozen=True, slots=True)
class _Lineage:
    """A node and all above it: their accounts, which of them have a deadline, and the first that has ended."""

    epoch: int
    line: Line
    timed: tuple[Meter, ...]
    ended: str | None


class Meter:
    """One node of the budget tree.

    Args:
        name: what the node is called in reports; its path is ``parent/name``.
        budget: its own limits, one Budget or several (a day's beside a month's); those of its ancestors hold as well.
        kind: tenant, job, chain or agent, for reports.
        parent: the node above. Use ``child`` instead.
        recorded_as: what ledgers know its account by; its path when None. A node whose name others have too needs
            one of its own.
        clock: a monotonic clock in seconds, for tests.
        calendar: the time of day in UTC, for tests of budgets per period.

    Example:
        >>> job = Meter("job", Budget(tokens=1_000))
        >>> with job.child("chain").hold(Quote(tokens=600)) as hold:
        ...     hold.settle(Spend(calls=1))
        >>> job.room().tokens
        1000
    """

    def __init__(
        self,
        name: str,
        budget: Budget | Sequence[Budget] | None = None,
        *,
        kind: str = "chain",
        parent: Meter | None = None,
        recorded_as: str | None = None,
        clock: Clock = time.monotonic,
        calendar: Calendar = utc_now,
    ) -> None:
        budgets = (budget,) if isinstance(budget, Budget) else tuple(budget or ())
        if len({one.per for one in budgets}) < len(budgets):
            raise UsageError(f"'{name}' has two budgets for the same period. Give one for each.")
        self.name = name = writable(name)
        self.kind = kind
        self.parent = parent
        self.path: str = name if parent is None else f"{parent.path}/{name}"
        above = name if parent is None else f"{parent.recorded_as}/{name}"
        self.recorded_as: str = recorded_as or above
        self.budget = next((one for one in budgets if one.per is None), Budget())
        self.children: list[Meter] = []
        self._names: Counter[str] = Counter()
        self._tree: Tree = Tree(clock, calendar) if parent is None else parent._tree
        self.raises = self._tree.raises
        # As they were given; those of the account are a share's, where the node has one.
        self._given: Limits = self.budget.limits
        self._account = Account(self.path, self._given, landing=self.budget.landing, warn_at=self.budget.warn_at)
        self._windows = [Window(one, self.path) for one in budgets if one.per is not None]
        self._grant = Grant()
        self._pacer: Pacer | None = None
        self._opened = self._tree.now()
        self._carried = 0.0
        self._closed: float | None = None
        self._tally = Tally()
        self._holds = self._refused = 0
        self._appeals = Appeals(self.path, None if parent is None else parent._appeals)
        self._kept: _Lineage | None = None
        self._recorded: tuple[int, tuple[tuple[str, Limits], ...]] = (-1, ())
        if self._windows:
            with self._tree.lock:
                self._tree.windows.extend(self._windows)
                self._tree.period_ends = None
                self._tree.turn_periods()

    def child(
        self,
        name: str,
        budget: Budget | None = None,
        *,
        share: float | None = None,
        seconds: float | None = None,
        final: bool = False,
        kind: str = "chain",
        recorded_as: str | None = None,
    ) -> Meter:
        """Open a node below this one.

        Args:
            name: its name; a second child of one name is numbered (``name#2``), except below a tenant.
            budget: limits of its own. The room under them is not set aside: whoever comes first may spend it.
            share: in place of ``budget``, the part (0 to 1] of what is left here that is set aside for it alone, of all
                currencies but calls. What it does not spend flows back when it closes.
            seconds: with ``share``, the wall clock it may take.
            final: with ``share``, count what budgets keep for a landing as left.
            kind: tenant, job, chain or agent, for reports.
            recorded_as: what ledgers know its account by; its path when None.

        Raises:
            UsageError: both ``budget`` and ``share`` are given, or the share is not one.
        """
        if self.kind != "tenant":
            # A second one of its name is another: its account and its calls are its own.
            self._names[name] += 1
            name = name if self._names[name] == 1 else f"{name}#{self._names[name]}"
        if share is None:
            node = Meter(name, budget, kind=kind, parent=self, recorded_as=recorded_as)
        elif budget is not None or not 0.0 < share <= 1.0:
            raise UsageError(f"'{name}' asks for a share of {share}: give a part above 0 and at most 1, or a budget.")
        else:
            rules = Budget(seconds=seconds, on_exceed=self.budget.on_exceed, warn_at=self.budget.warn_at)
            node = Meter(name, rules, kind=kind, parent=self, recorded_as=recorded_as)
            self._set_aside(node, share, final=final)
        with self._tree.lock:
            self.children.append(node)
            if budget is not None:
                # The ledger may remember other limits of it, from an earlier run of the job.
                self.raises.note(node.recorded_as, node.budget.limits, changed=False)
        return node

    def hold(self, quote: Quote, *, final: bool = False) -> Hold:
        """Reserve ``quote`` at this node and every ancestor, or nowhere.

        Args:
            quote: the most that the call can use.
            final: a last call, which may use what budgets keep for a landing.

        Returns:
            A hold, which must be settled or released; leaving it as a context manager releases it if it is
            still open.

        Raises:
            BudgetExceeded: a node lacks room, or was closed by an overrun. Nothing is reserved.
            UsageError: the node has ended.
        """
        asked = quote.amounts
        with self._tree.lock:
            lineage = self._line()
            line, timed = lineage.line, lineage.timed
            if lineage.ended is not None:
                raise UsageError(f"'{lineage.ended}' has ended; open a new node for another call.")
            late = self._late(timed, quote.seconds) if timed else None
            if late is not None or not line.admits(asked, final=final):
                self._refused += 1
                raise BudgetExceeded(late or line.refusal(asked, final=final) or _impossible(self.path))
            line.reserve(asked)
            self._holds += 1
        return Hold(self, quote, line)

    def room(self, *, final: bool = False) -> Room:
        """What is left for the next hold, the least over this node and its ancestors.

        Args:
            final: for a last call, which may use what budgets keep for a landing.
        """
        with self._tree.lock:
            return Room.of(self._line().line.left(final=final), self.seconds_left)

    @property
    def seconds_left(self) -> float | None:
        """The wall clock that is left, the least over this node and its ancestors; None without a limit."""
        with self._tree.lock:
            timed = self._line().timed
            if not timed:
                return None
            return max(min((node.budget.seconds or 0.0) - node.elapsed for node in timed), 0.0)

    def left(self) -> dict[str, float]:
        """What is left of every currency that is limited here or above, in its own unit: dollars, joules, grams ..."""
        room = self.room()
        currencies: tuple[Currency, ...] = (*COUNTED, "seconds")
        left: dict[str, float] = {}
        for currency in currencies:
            amount = room.of_currency(currency)
            if amount is not None:
                left[currency] = float(amount_text(currency, amount))
        return left

    def end(self, hold: Hold, spend: Spend | None) -> None:
        """End a hold: ``Hold.settle`` and ``Hold.release`` do it. A second time changes nothing."""
        asked = hold.quote.amounts
        with self._tree.lock:
            if not hold.open:
                return
            hold.open = False
            self._holds -= 1
            if spend is None:
                hold.line.settle(asked, NOTHING)
                return
            used = spend.amounts
            hold.line.settle(asked, used)
            over: list[int] = []
            if not fits_in(used, asked):
                over = [place for place in range(len(COUNTED)) if used[place] > asked[place]]
                spend = spend.overrun()
                self._count_overrun(hold, used)
            self._tally.add(spend)
            if self._closed is not None and self.parent is not None and self.parent.kind == "tenant":
                self.parent._keep_sum_of(self)
            rang = [(a, currency) for a in hold.line.accounts if a.alarms for currency in a.rang()]
        if over or rang:
            self._tell_of(hold, used, over, rang)

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The accounts of this node and its ancestors, nearest first."""
        with self._tree.lock:
            return self._line().line.accounts

    @property
    def recorded_limits(self) -> tuple[tuple[str, Limits], ...]:
        """The same accounts as ledgers know them: their ids and limits.

        A share has no limits there: it divides a budget inside one process, and is divided anew when a job resumes.
        """
        with self._tree.lock:
            self._line()
            epoch, accounts = self._recorded
            if epoch != self._tree.epoch:
                accounts = tuple(recorded for node in self._lineage() for recorded in node._own_limits())
                self._recorded = (self._tree.epoch, accounts)
            return accounts

    @property
    def clocks(self) -> tuple[tuple[str, float], ...]:
        """Seconds elapsed at the nodes of the lineage whose seconds are limited, by the id of their account."""
        with self._tree.lock:
            return tuple((node.recorded_as, node.elapsed) for node in self._line().timed)

    @property
    def limits(self) -> Limits:
        """The node's own limits of the counted currencies, for its whole life."""
        return self._account.limits

    @property
    def spent(self) -> Spend:
        """What this node and all below it have spent; ``seconds`` is this node's own elapsed wall clock."""
        total = Tally()
        with self._tree.lock:
            for node in self.walk():
                total.add(node._tally.total())
            return total.total().lasting(self.elapsed)

    @property
    def elapsed(self) -> float:
        """Seconds since the node opened, until it was closed; those of an earlier process included."""
        return self._carried + (self._tree.now() if self._closed is None else self._closed) - self._opened

    def close(self) -> None:
        """End the node: its clock stops, it grants no more, and what was set aside for it flows back.

        Below a tenant's node it also leaves ``children``: the tenant keeps what it spent.
        """
        with self._tree.lock:
            if self._closed is not None:
                return
            self._closed = self._tree.now()
            self._tree.epoch += 1
            self._give_back()
            if self.parent is not None and self.parent.kind == "tenant":
                self.parent._keep_sum_of(self)

    def set_limits(self, budget: Budget) -> None:
        """Give the node other limits for its whole life, or for the period that is now, if ``budget`` is for a period.

        What is spent and held stays. A closing by an overrun is lifted. A node with a share gives it back, and has
        these limits of its own from then on. Questions that the new limits answer are answered. The ledger is told
        before the next call of this tree leaves.

        Raises:
            UsageError: the node has no budget for that period.
        """
        with self._tree.lock:
            window = next((window for window in self._windows if window.budget.per == budget.per), None)
            if budget.per is not None and window is None:
                raise UsageError(f"'{self.path}' has no budget per {budget.per} that could be changed.")
            before = self._account.limits if window is None else window.account.limits
            if window is None:
                self._give_back()
                self.budget, self._given = budget, budget.limits
                id, account = self.recorded_as, self._account
            else:
                id, account = window.account.id, window.account
            account.set_limits(budget.limits, landing=budget.landing, warn_at=budget.warn_at)
            self.raises.note(id, budget.limits)
            self._tree.epoch += 1
            changed = {c for c, old, new in zip(COUNTED, before, budget.limits, strict=True) if old != new}
            answered = self._appeals.answered_by({*changed, "seconds"})
        self._appeals.tell("raised", f"'{account.id}' has new limits")
        for question in answered:
            question.resolve(raised=True)

    def carry(self, amounts: Mapping[str, Sequence[int]], seconds: float = 0.0) -> None:
        """Count what other processes spent under this node, as far as it is more than what is known here.

        A warning share that was passed there is told here too, with the next call that ends.

        Args:
            amounts: spent, in the order of ``currency.COUNTED``, by the ids of the node's accounts in the ledger.
            seconds: the wall clock of the node in an earlier process.
        """
        with self._tree.lock:
            self._line()
            for id, account in self._named_accounts():
                if id in amounts:
                    account.spent_at_least(amounts[id])
            self._carried = max(self._carried, seconds)

    def expect(self, work: float) -> None:
        """Say how much work lies ahead, in any unit, so that spending is paced. ``did`` counts it off."""
        self._pacer = Pacer(work, seen=as_amounts(self._account.spent))

    def did(self, units: float = 1.0) -> None:
        """Count work as done, here; nothing when none was expected."""
        if self._pacer is not None:
            with self._tree.lock:
                self._pacer.did(units, as_amounts(self._account.spent))

    def dearness(self, quote: Quote) -> float:
        """``quote`` at the shadow prices of this node and its ancestors: 0 while their budgets last."""
        with self._tree.lock:
            return sum(
                node._pacer.dearness(quote.amounts, node._account.unspent)
                for node in self._lineage()
                if node._pacer is not None
            )

    def listen(self, listener: Listener, *, answers: bool = True) -> None:
        """Tell ``listener`` of every event of this node and those below it.

        Args:
            listener: called in the task or thread in which it happens; it should be quick. What it raises is logged.
            answers: whether it sees to it that questions are answered. Where nobody does, a question is a refusal.
        """
        self._appeals.listen(listener, answers=answers)

    @property
    def ask(self) -> Ask | None:
        """Who is asked when a call here or below does not fit a budget with ``on_exceed="ask"``."""
        return self._appeals.ask

    @ask.setter
    def ask(self, ask: Ask | None) -> None:
        self._appeals.ask = ask

    @property
    def questions(self) -> tuple[Question, ...]:
        """Questions about this node that nobody has answered yet."""
        return self._appeals.questions

    def on_exceed(self, refused: BudgetExceeded) -> OnExceed:
        """What the budget that refused a hold wants done about it."""
        found = self._refuser(refused)
        return "stop" if found is None else found[1].on_exceed

    async def appeal(self, refused: BudgetExceeded) -> bool:
        """Ask whether the limit that refused a hold may be raised, and wait for the answer.

        Asked is the nearest ``ask`` callback from the node that refused upwards; without one, whoever listens gets the
        question as an event. Calls refused at the same node wait for the same answer.

        Returns:
            Whether more is left now than when it was refused. False at once when that budget is not
            ``on_exceed="ask"`` or nobody could answer, and False when the wall clock runs out meanwhile.
        """
        found = self._refuser(refused)
        if found is None or found[1].on_exceed != "ask":
            return False
        # More time can be asked for when the time is up: for as long as there was in all.
        late = refused.refusal.currency == "seconds"
        seconds = found[1].seconds if late else self.room().seconds
        if seconds == 0.0:
            return False
        try:
            async with asyncio.timeout(seconds):
                raised = await found[0]._appeals.put(refused.refusal, found[1], found[0].set_limits)
                return raised and found[0]._gained(refused.refusal)
        except TimeoutError:
            return False

    def statistics(self) -> MeterStatistics:
        """A snapshot of this node."""
        with self._tree.lock:
            account = self._account
            return MeterStatistics(
                self.path, account.limits, self.spent, as_amounts(account.held), as_amounts(account.granted),
                sum(node._holds for node in self.walk()), self._refused, account.overruns, account.closed,
            )  # fmt: skip

    def walk(self) -> Iterator[Meter]:
        """This node and all below it, parents first."""
        yield self
        for child in tuple(self.children):
            yield from child.walk()

    def _set_aside(self, node: Meter, share: float, *, final: bool) -> None:
        with self._tree.lock:
            # Calls are counted one by one: a part of a few would be none.
            limited = (place for place, limit in enumerate(self._account.limits) if limit is not None)
            places = [place for place in limited if COUNTED[place] != "calls"]
            node._grant, amounts = self._line().line.grant(share, places, final=final)
            tokens, usd, joules, grams, calls = (a if p in places else None for p, a in enumerate(amounts))
            node._account.set_limits((tokens, usd, joules, grams, calls), warn_at=node.budget.warn_at)

    def _give_back(self) -> None:
        """Let what is left of the node's share flow back; from now on it draws on what is left above, as others do."""
        if self._grant.given:
            left = Step((self._account,), self._grant).left()
            self._grant.changed(left, [0] * len(left))
            # Calls in flight know the grant, too.
            self._grant.given.clear()
            self._tree.epoch += 1

    def _gained(self, refusal: Refusal) -> bool:
        """Whether more is left now of what was refused."""
        if refusal.closed:
            return True
        if refusal.currency == "seconds":
            return (self.budget.seconds or math.inf) - self.elapsed > refusal.left
        place = [str(currency) for currency in COUNTED].index(refusal.currency)
        named = {account.id: account for account in self._own_accounts()} | dict(self._named_accounts())
        account = named.get(refusal.node.strip("'"))
        return account is not None and account.available(place, final=True) > refusal.left

    def _count_overrun(self, hold: Hold, used: Amounts) -> None:
        """Count a reply that was dearer than its hold; where the hold was a bound on a limited currency, close."""
        for account in hold.line.accounts:
            account.overruns += 1
        places = exceeded(hold.line.accounts, hold.quote.amounts, used)
        if hold.quote.bound and places:
            self._account.closed = closing(hold.quote.amounts, used, places)

    def _tell_of(self, hold: Hold, used: Amounts, over: Sequence[int], rang: Sequence[tuple[Account, str]]) -> None:
        for account, currency in rang:
            # An account of a period that is over belongs to nobody's present line.
            node = next((node for node in self._lineage() if account in node._own_accounts()), self)
            node._appeals.tell("warning", f"'{account.id}' has spent {account.warn_at:.0%} of its {currency}", currency)
        if over:
            currency, what = COUNTED[over[0]], dearer(hold.quote.amounts, used, over)
            self._appeals.tell("overrun", f"'{self.path}': a reply cost more than was held: {what}", currency)
            if self._account.closed:
                self._appeals.tell("closed", f"'{self.path}' {self._account.closed}", currency)

    def _keep_sum_of(self, child: Meter) -> None:
        """A tenant outlives its jobs by far: it keeps what they spent, not their nodes."""
        if child in self.children and not child.statistics().open_holds:
            self._tally.add(child.spent)
            self.children.remove(child)

    def _own_accounts(self) -> tuple[Account, ...]:
        return (self._account, *(window.account for window in self._windows))

    def _own_limits(self) -> Iterator[tuple[str, Limits]]:
        yield self.recorded_as, self._given
        for window in self._windows:
            yield window.account.id, window.account.limits

    def _named_accounts(self) -> Iterator[tuple[str, Account]]:
        yield self.recorded_as, self._account
        for window in self._windows:
            yield window.account.id, window.account

    def _lineage(self) -> Iterator[Meter]:
        node: Meter | None = self
        while node is not None:
            yield node
            node = node.parent

    def _refuser(self, refused: BudgetExceeded) -> tuple[Meter, Budget] | None:
        """The node that refused a hold, and which of its budgets."""
        name = refused.refusal.node.strip("'")
        for node in self._lineage():
            if name in (node.path, node.recorded_as):
                return node, node.budget
            for window in node._windows:
                if window.account.id == name:
                    return node, window.budget
        return None

    def _line(self) -> _Lineage:
        """The node's lineage; kept until it changes."""
        tree = self._tree
        if tree.windows:
            tree.turn_periods()
        if self._kept is None or self._kept.epoch != tree.epoch:
            nodes = tuple(self._lineage())
            self._kept = _Lineage(
                tree.epoch,
                Line([Step(node._own_accounts(), node._grant) for node in nodes]),
                tuple(node for node in nodes if node.budget.seconds is not None),
                next((node.path for node in nodes if node._closed is not None), None),
            )
        return self._kept

    def _late(self, timed: Sequence[Meter], seconds: float) -> Refusal | None:
        for node in timed:
            limit = node.budget.seconds or 0.0
            left = limit - node.elapsed
            # With its seconds gone a node grants nothing, not even a hold that asks for no time.
            if seconds > left or left <= 0.0:
                return refusal(node.path, "seconds", limit, node.elapsed, 0.0, seconds, max(left, 0.0))
        return None


def _impossible(path: str) -> Refusal:
    return Refusal("calls", f"'{path}'", "", "", "", "", 0.0, "admits nothing")
