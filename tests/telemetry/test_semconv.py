from __future__ import annotations

import opentelemetry.semconv._incubating.attributes.gen_ai_attributes as attributes
import opentelemetry.semconv._incubating.metrics.gen_ai_metrics as metrics
from opentelemetry.semconv.attributes import error_attributes

from agentflow.telemetry import semconv

# Names we use ahead of the conventions that the package knows: proposals, and the drafts that came after it.
AHEAD = {
    semconv.COST_AMOUNT,
    semconv.COST_CURRENCY,
    semconv.COST_SOURCE,
    semconv.METRIC_COST,
    semconv.USAGE_CACHE_WRITE,
    semconv.EVALUATION_EVENT,
}
# Names of viewers, not of the conventions.
VIEWERS = {semconv.OPENINFERENCE_KIND, semconv.MLFLOW_COST}
REPLACED = {"gen_ai.system", "gen_ai.prompt", "gen_ai.completion"}


def ours() -> dict[str, str]:
    return {key: value for key, value in vars(semconv).items() if key.isupper() and key not in {"SNAPSHOT", "SCOPE"}}


def known() -> set[str]:
    packages = (attributes, metrics, error_attributes)
    return {value for package in packages for value in vars(package).values() if isinstance(value, str)}


def test_every_name_outside_our_own_is_one_the_conventions_know() -> None:
    foreign = {name for name in ours().values() if not name.startswith("agentflow.")}
    assert foreign - known() == AHEAD | VIEWERS


def test_no_replaced_name_is_used() -> None:
    assert not {n for n in ours().values() if n in REPLACED or n.startswith("gen_ai.openai.")}


def test_every_name_is_there_once_and_is_no_prefix_of_another() -> None:
    names = list(ours().values())
    assert len(set(names)) == len(names)
    own = [name for name in names if name.startswith("agentflow.usage.")]
    assert not [(a, b) for a in own for b in own if b.startswith(a + ".")]


def test_the_snapshot_is_named() -> None:
    assert semconv.SNAPSHOT == "semantic-conventions v1.41.1"
