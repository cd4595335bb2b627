"""Depth: how far a research job looks: which rungs it climbs, how many sub-questions and passages. Pure.

Imports config. ``jobs.effort`` says which effort has which depth; the pipeline follows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agentflow.config import ResearchSettings

_MOST_SUB_QUESTIONS, _MOST_PASSAGES, _MOST_PASSAGES_READ = 12, 100, 200
# English has about 4 characters a token; tables and code fewer.
_CHARS_PER_TOKEN = 3
# Tokens of a synthesis beside its passages: instructions, question, reply.
_BESIDE_PASSAGES = 2_000


@dataclass(frozen=True, slots=True)
class Depth:
    """How far a job looks.

    Args:
        cascade: climbed by every step; what its agent names when None.
        model_rungs: how many models of a cascade are climbed, from the first on; all when None.
        breadth: sub-questions and passages, as a multiple of those configured.

    Example:
        >>> Depth(breadth=2.0).widened(ResearchSettings(), ()).sub_questions
        8
    """

    cascade: str | None = None
    model_rungs: int | None = None
    breadth: float = 1.0

    def widened(self, configured: ResearchSettings, contexts: Iterable[int | None]) -> ResearchSettings:
        """The settings of a job this deep.

        Args:
            configured: those of the configuration.
            contexts: tokens that each model of the synthesis takes; None where unknown. More passages than the largest
                of them takes would keep every model from answering.
        """
        if self.breadth == 1.0:
            return configured
        most = min(round(configured.most_passages * self.breadth), _MOST_PASSAGES_READ)
        known = list(contexts)
        if known and None not in known:
            tokens = max(context for context in known if context is not None) - _BESIDE_PASSAGES
            fitting = max(tokens, 0) * _CHARS_PER_TOKEN // configured.chunk_chars
            most = min(most, max(fitting, configured.most_passages))
        return configured.model_copy(
            update={
                "sub_questions": _times(configured.sub_questions, self.breadth, _MOST_SUB_QUESTIONS),
                "passages": _times(configured.passages, self.breadth, _MOST_PASSAGES),
                "most_passages": max(most, 1),
            }
        )


def _times(figure: int, breadth: float, most: int) -> int:
    return max(1, min(round(figure * breadth), most))


AS_CONFIGURED: Final = Depth()
