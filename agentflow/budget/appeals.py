"""Appeals: who is told what happens to a node's budget, and who is asked when a call does not fit. Imports events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator

from agentflow.budget.budget import Budget
from agentflow.budget.events import Ask, BudgetEvent, EventKind, Listener, Question
from agentflow.errors import Refusal

_LOG = logging.getLogger(__name__)


class Appeals:
    """One node's listeners, its questions that nobody has answered yet, and whom to ask; linked to the node above.

    Args:
        path: of the node.
        above: of the node above it.
    """

    __slots__ = ("_above", "_answerable", "_listeners", "_questions", "ask", "path")

    def __init__(self, path: str, above: Appeals | None) -> None:
        self.path = path
        self.ask: Ask | None = None
        self._above = above
        self._listeners: list[Listener] = []
        self._answerable = False
        self._questions: list[Question] = []

    def listen(self, listener: Listener, *, answers: bool) -> None:
        """Tell ``listener`` of every event here and below; ``answers`` is whether it sees to it that questions are."""
        self._listeners.append(listener)
        self._answerable = self._answerable or answers

    def tell(self, kind: EventKind, message: str, currency: str = "", question: Question | None = None) -> None:
        """Tell everyone who listens here or above. What a listener raises is logged: it must not lose a reply."""
        event = BudgetEvent(kind, self.path, message, currency, question)
        for node in self._upwards():
            for listener in tuple(node._listeners):
                try:
                    listener(event)
                except Exception:
                    _LOG.exception("A listener of '%s' failed on: %s", node.path, message)

    @property
    def questions(self) -> tuple[Question, ...]:
        """Those that nobody has answered yet."""
        return tuple(question for question in self._questions if not question.answered)

    def answered_by(self, changed: Collection[str]) -> list[Question]:
        """Take out the questions that new limits on these currencies answer."""
        answered = [q for q in self._questions if q.refusal.currency in changed or q.refusal.closed]
        self._questions = [question for question in self._questions if question not in answered]
        return answered

    async def put(self, refusal: Refusal, budget: Budget, give: Callable[[Budget], None]) -> bool:
        """Put the question to whoever can answer, or join those who wait for the answer already.

        Args:
            refusal: what does not fit.
            budget: whose limit it is.
            give: gives the node other limits.

        Returns:
            Whether the limit was raised; False at once when there is nobody to ask.
        """
        question = next((q for q in self.questions if q.refusal.currency == refusal.currency), None)
        if question is None:
            callback = next((node.ask for node in self._upwards() if node.ask is not None), None)
            if callback is None and not any(node._answerable for node in self._upwards()):
                return False
            question = Question(refusal, budget, give, callback)
            self._questions.append(question)
            self.tell("asked", f"'{self.path}' asks for more {refusal.currency}", refusal.currency, question)
        try:
            return await question.wait()
        finally:
            if question.answered and question in self._questions:
                self._questions.remove(question)

    def _upwards(self) -> Iterator[Appeals]:
        node: Appeals | None = self
        while node is not None:
            yield node
            node = node._above
