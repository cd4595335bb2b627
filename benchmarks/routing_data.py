"""Recorded outcomes of many models on the same questions, as matrices: questions down, models across.

The file has one row per question and model; its columns are described where it lies. ``Outcomes`` is all that the
rest of the benchmark sees.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from agentflow.energy.remote import RemotePrior

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Accounting = Literal["recorded", "as_paid"]

# Dollars per million tokens, in and out, at which the recorded cost splits into the answer and the self-check: list
# prices of 2024, restated from the description of the data.
LIST_PRICES = {
    "llama3.2-1b": (0.1, 0.1),
    "llama3.2-3b": (0.1, 0.1),
    "llama3.1-8b": (0.2, 0.2),
    "llama3.1-70b": (0.9, 0.9),
    "llama3.1-405b": (3.0, 3.0),
    "gpt-4o-mini": (0.15, 0.6),
    "qwen2.5-32b-coder-instruct": (0.9, 0.9),
    "qwen2.5-72b-instruct": (0.9, 0.9),
    "gpt-4o": (2.5, 10.0),
}
# Less than this is rounding, not a self-check, dollars.
_NO_CHECK = 1e-9


@dataclass(frozen=True)
class Outcomes:
    """Questions by models.

    ``answer_cost`` and ``check_cost`` are what the answer and the signal cost apart (as paid); ``answers`` numbers
    equal answers of one question equally; ``own_signal`` tells questions whose signal is a call of its own;
    ``prompt`` is the tokens of the prompt, which are known before anything is asked.
    """

    models: tuple[str, ...]
    ids: npt.NDArray[Any]
    benchmark: npt.NDArray[Any]
    query: npt.NDArray[Any]
    score: Floats
    answer_cost: Floats
    check_cost: Floats
    latency: Floats
    confidence: Floats
    answers: Ints
    embedding: Floats
    own_signal: npt.NDArray[np.bool_]
    prompt: Floats

    @property
    def recorded(self) -> Floats:
        """The cost of answer and signal together."""
        return self.answer_cost + self.check_cost

    def of(self, rows: Any) -> Outcomes:
        """Some of the questions."""
        taken = {
            name: getattr(self, name)[rows]
            for name in (
                "ids", "benchmark", "query", "score", "answer_cost", "check_cost", "latency", "confidence", "answers",
                "embedding", "own_signal", "prompt",
            )
        }  # fmt: skip
        return replace(self, **taken)

    def accounted(self, accounting: Accounting) -> Outcomes:
        """The same under an accounting: as recorded every answer comes with its signal, and pays for it."""
        if accounting == "as_paid":
            return self
        return replace(self, answer_cost=self.recorded, check_cost=np.zeros_like(self.check_cost))


def load(path: Path, *, joules: bool = False) -> Outcomes:
    """Read outcomes; models in the order of their mean recorded cost, questions in the order of their ids.

    Args:
        path: a parquet file; embeddings are read from ``minilm_emb.npz`` beside it, where it lies.
        joules: costs are joules instead of dollars.
    """
    import pandas as pd

    rows = pd.read_parquet(path)
    rows = rows[rows["split"] == "test"]
    order = rows.groupby("model")["cost_usd"].mean().sort_values(kind="stable").index

    def matrix(column: str) -> Any:
        return rows.pivot(index="query_id", columns="model", values=column).sort_index()[order]

    score = matrix("score")
    ids = score.index.to_numpy().astype(str)
    first = rows.drop_duplicates("query_id").set_index("query_id").loc[ids]
    confidence = matrix("confidence").to_numpy(float).copy()
    for column in confidence.T:
        column[~np.isfinite(column)] = column[np.isfinite(column)].min()
    models = tuple(str(m) for m in order)
    tokens = np.stack([matrix("in_tokens").to_numpy(float), matrix("out_tokens").to_numpy(float)])
    answer, check = _split(models, matrix("cost_usd").to_numpy(float), tokens)
    if joules:
        answer, check = _joules(models, tokens, check)
    texts = matrix("answer").to_numpy()
    options = first["query"].str.contains("\nA: ").to_numpy()
    return Outcomes(
        models, ids, first["dataset"].to_numpy().astype(str), first["query"].to_numpy().astype(str),
        score.to_numpy(float), answer, check, matrix("latency_ms").to_numpy(float), confidence,
        np.array([_numbered(row, letter=bool(o)) for row, o in zip(texts, options, strict=True)]),
        _embeddings(path.parent / "minilm_emb.npz", ids, first["query"].to_numpy()),
        check.max(axis=1) > 0, tokens[0].min(axis=1),
    )  # fmt: skip


def _split(models: tuple[str, ...], cost: Floats, tokens: Floats) -> tuple[Floats, Floats]:
    """What the answer cost, and what the signal cost on top; a model without a list price pays for both at once."""
    prices = np.array([LIST_PRICES.get(m, (np.nan, np.nan)) for m in models]) / 1e6
    answer = np.where(
        np.isnan(prices[:, 0]), cost, np.minimum(cost, tokens[0] * prices[:, 0] + tokens[1] * prices[:, 1])
    )
    check = np.where(cost - answer > _NO_CHECK, cost - answer, 0.0)
    return cost - check, check


def _joules(models: tuple[str, ...], tokens: Floats, check: Floats) -> tuple[Floats, Floats]:
    """Joules of answer and signal, at the means of ``energy.remote`` by the model's size.

    The signal is another prompt of as many tokens as its dollars buy at the input price.
    """
    answer, signal = np.zeros_like(check), np.zeros_like(check)
    for column, model in enumerate(models):
        size = re.search(r"-(\d+)b", model)
        prior = RemotePrior.of_size(float(size.group(1))) if size else RemotePrior.of_model(model)
        answer[:, column] = tokens[0][:, column] * prior.input.mean + tokens[1][:, column] * prior.output.mean
        signal[:, column] = check[:, column] / (LIST_PRICES[model][0] / 1e6) * prior.input.mean
    return answer, signal


def _numbered(texts: Any, *, letter: bool) -> list[int]:
    keys = [text.strip()[:1].upper() if letter else plain(text) for text in texts]
    return [keys.index(key) for key in keys]


def plain(text: str) -> str:
    """An answer without case, punctuation, articles."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _embeddings(path: Path, ids: Any, queries: Any) -> Floats:
    """Unit vectors of the questions: the stored ones, or word counts projected to 128 numbers."""
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            place = {str(id): at for at, id in enumerate(stored["query_id"])}
            if all(id in place for id in ids):
                return stored["emb"][[place[id] for id in ids]].astype(float)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    counts = HashingVectorizer(n_features=2**16, ngram_range=(1, 2)).transform(queries)
    found: Floats = normalize(TruncatedSVD(128, random_state=0).fit_transform(counts))
    return found
