from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentflow.research.json_schema import MOST_DEPTH, checked_schema, faults, named_values
from agentflow.research.length import within, word_count
from agentflow.research.output import JobOutput
from agentflow.research.report import Claim

RIVER: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"$ref": "#/$defs/name"}, "length_km": {"type": ["number", "null"]}},
    "required": ["name"],
    "$defs": {"name": {"type": "string", "pattern": "^[A-Z]"}},
}


def laughs(times: int) -> dict[str, Any]:
    """Each definition holds the next one eight times."""
    names = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 8} for n in range(times)}
    return {"$ref": "#/$defs/d0", "$defs": {**names, f"d{times}": {}}}


def nested(depth: int) -> dict[str, Any]:
    return {"items": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("tag", "spelled"),
    [("de", "de"), ("DE-ch", "de-CH"), ("pt-br", "pt-BR"), ("zh-hans", "zh-Hans"), ("iw", "he")],
)
def test_a_tag_is_taken_in_its_usual_spelling(tag: str, spelled: str) -> None:
    assert JobOutput(language=tag).language == spelled


@pytest.mark.parametrize(
    "tag", ["xx", "german", "en_US", "x-klingon", "i-klingon", "de-", "-", "de de", "dé", "d" * 36]
)
def test_what_is_no_registered_language_is_refused_by_name(tag: str) -> None:
    with pytest.raises(ValidationError) as refused:
        JobOutput(language=tag)
    assert refused.value.errors()[0]["loc"] == ("language",)


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "river"}, "no JSON Schema"),
        ({"properties": []}, "no JSON Schema"),
        ({"$ref": "https://example.org/x.json"}, "outside"),
        ({"$ref": "file:///etc/passwd"}, "outside"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "nothing at"),
        ({"$ref": "#"}, "refers to itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "refers to itself"),
        ({"properties": {"a": {"$id": "http://x/"}}}, "'$id'"),
        ({"$dynamicRef": "#x"}, "dynamicRef"),
        ({"patternProperties": {"a": {}}}, "patternProperties"),
        ({"$schema": "http://example.org/mine"}, "no draft"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "a" * 501}, "characters"),
        ({"description": "x" * 40_000}, "bytes"),
        (nested(MOST_DEPTH), "deep"),
        (laughs(6), "parts"),
    ],
)
def test_a_schema_that_cannot_be_bounded_is_refused_with_the_reason(schema: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(word)) as refused:
        JobOutput(json_schema=schema)
    assert refused.value.errors()[0]["loc"] == ("json_schema",)


def test_names_of_properties_are_no_keywords_and_data_is_no_schema() -> None:
    names = {"properties": {"$ref": {"type": "string"}, "pattern": {}, "$id": {}, "patternProperties": {}}}
    assert checked_schema(names) == names
    data = {"const": {"$ref": "http://example.org"}, "default": {"$id": "x"}}
    assert checked_schema(data) == data
    assert checked_schema({"$schema": "http://json-schema.org/draft-07/schema#", **RIVER})


def test_a_value_is_held_to_the_schema_its_references_and_its_patterns() -> None:
    assert faults({"name": "Rhine", "length_km": 1233}, RIVER) == []
    assert faults({"name": "rhine"}, RIVER) == ["/name: does not match the pattern '^[A-Z]'"]
    assert "'name' is a required property" in faults({}, RIVER)[0]


def test_a_pattern_that_never_ends_is_ended() -> None:
    began = time.monotonic()
    (fault,) = faults("a" * 60 + "!", checked_schema({"pattern": "^(a|a)*$"}))
    assert "takes too long" in fault or "does not match" in fault
    assert time.monotonic() - began < 20


def test_texts_that_a_schema_names_are_known() -> None:
    schema = {"properties": {"kind": {"enum": ["river", "sea", 3]}, "x": {"const": "fixed"}}}
    assert named_values(schema) == {"river", "sea", "fixed"}


@given(st.lists(st.text(alphabet="ab 潮.", min_size=1), max_size=8), st.integers(min_value=1, max_value=30))
def test_whole_claims_are_kept_from_the_front_within_the_words(texts: list[str], most: int) -> None:
    claims = [Claim(text=text, citations=(), question=0, support=1.0) for text in texts]
    kept, left_out = within(claims, most)
    assert [*kept, *left_out] == claims
    words = sum(word_count(claim.text) for claim in kept)
    assert words <= most or len(kept) == 1
    if left_out and kept:
        assert words + word_count(left_out[0].text) > most
    assert bool(kept) == bool(claims)
    assert within(claims, None) == (tuple(claims), ())
