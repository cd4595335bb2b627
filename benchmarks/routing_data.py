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
_COLUMNS = (
    "dataset", "split", "query_id", "query", "model", "score", "cost_usd", "in_tokens", "out_tokens", "latency_ms",
    "confidence", "answer",
)  # fmt: skip
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
    from pyarrow import parquet

    columns: dict[str, Any] = {
        name: column.to_numpy(zero_copy_only=False)
        for name, column in zip(_COLUMNS, parquet.read_table(path, columns=list(_COLUMNS)).columns, strict=True)
    }
    kept = columns["split"] == "test"
    columns = {name: column[kept] for name, column in columns.items()}
    ids, row = np.unique(columns["query_id"].astype(str), return_inverse=True)
    names, place = np.unique(columns["model"].astype(str), return_inverse=True)
    if len(row) != len(ids) * len(names):
        raise SystemExit(f"{path}: every model must have answered every question of the test split once.")

    def matrix(name: str, kind: Any = float) -> Any:
        found = np.empty((len(ids), len(names)), kind)
        found[row, place] = columns[name]
        return found[:, order] if order is not None else found

    order: Any = None
    order = np.argsort(matrix("cost_usd").mean(axis=0), kind="stable")
    models = tuple(str(name) for name in names[order])
    confidence = matrix("confidence")
    for column in confidence.T:
        column[~np.isfinite(column)] = column[np.isfinite(column)].min()
    tokens = np.stack([matrix("in_tokens"), matrix("out_tokens")])
    answer, check = _split(models, matrix("cost_usd"), tokens)
    own_signal = check.max(axis=1) > 0
    if joules:
        answer, check = _joules(models, tokens, check)
    query = matrix("query", object)[:, 0].astype(str)
    letters = ["\nA: " in text for text in query.tolist()]
    answers = matrix("answer", object).tolist()
    return Outcomes(
        models, ids, matrix("dataset", object)[:, 0].astype(str), query, matrix("score"), answer, check,
        matrix("latency_ms"), confidence,
        np.array([_numbered(row, letter=letter) for row, letter in zip(answers, letters, strict=True)]),
        _embeddings(path.parent / "minilm_emb.npz", ids, query), own_signal, tokens[0].min(axis=1),
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

    counts = HashingVectorizer(n_features=2**12).transform(queries)
    return np.asarray(normalize(TruncatedSVD(128, random_state=0).fit_transform(counts)), np.float64)
