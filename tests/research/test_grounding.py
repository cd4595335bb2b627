from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.research.grounding import Ground, leaves
from agentflow.research.lexicon import Lexicon
from agentflow.research.report import Claim

TEXTS = (
    "The tide in the Bay of Fundy rises by 16 metres.",
    "The moon pulls the water of the bay.",
    "The Rhine is 1,233 kilometres long, and its basin has 0.185 million square kilometres.",
)


def ground(*texts: str, named: frozenset[str] = frozenset()) -> Ground:
    claims = [Claim(id=f"c{n}", text=t, citations=(), question=0, support=1.0) for n, t in enumerate(texts, start=1)]
    return Ground(tuple(claims), named, Lexicon({}, 0), 0.6)


def test_each_leaf_has_the_claims_it_stands_in() -> None:
    data = {
        "place": "Bay of Fundy", "rise": 16, "rise_m": 16.0, "rivers": [{"name": "rhine", "km": 1233}],
        "why": "The moon pulls the water of the bay.", "unknown": None, "sure": True, "note": "", "a/b~c": 0.185,
    }  # fmt: skip
    assert ground(*TEXTS).basis(data) == {
        "/place": ("c1",), "/rise": ("c1",), "/rise_m": ("c1",), "/rivers/0/name": ("c3",), "/rivers/0/km": ("c3",),
        "/why": ("c2",), "/unknown": (), "/sure": (), "/note": (), "/a~1b~0c": ("c3",),
    }  # fmt: skip


def test_a_longer_text_may_say_it_in_other_words_and_join_claims() -> None:
    joined = "In the Bay of Fundy the tide rises by 16 metres, for the moon pulls the water."
    assert ground(*TEXTS).basis({"summary": joined}) == {"/summary": ("c1", "c2")}
    shorter = "The tide rises by 16 metres in the Bay of Fundy"
    assert ground(*TEXTS).basis([shorter]) == {"/0": ("c1",)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"rise": 17}, "/rise: the number 17"),
        ({"rise": 1.6}, "/rise: the number 1.6"),
        ({"rise": -16}, "the number -16"),
        ({"rise": float("nan")}, "the number nan"),
        ({"rise": 1e300}, "the number"),
        ({"place": "Bay of Biscay"}, "/place: 'Bay of Biscay'"),
        ({"place": "undy"}, "does not stand in any claim"),
        ({"all": ["The tide in the Bay of Fundy rises by 99 metres."]}, "/all/0: .*99"),
        ({"why": "The wind of the north pushes great ships around the world."}, "/why"),
        ({"why": "The moon does not pull the water of the bay."}, "/why"),
    ],
)
def test_what_no_claim_tells_is_refused_by_its_place(data: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ground(*TEXTS).basis(data)


def test_what_the_schema_names_is_chosen_not_found() -> None:
    assert ground(*TEXTS, named=frozenset({"high", "moon"})).basis(["high", "moon"]) == {"/0": (), "/1": ("c2",)}


def test_a_translated_claim_carries_by_its_own_words_and_by_the_verified_ones() -> None:
    claim = Claim(
        id="c1", text="Die Flut steigt um 16 Meter.", original="The tide rises by 16 metres.", citations=(),
        question=0, support=1.0,
    )  # fmt: skip
    made = Ground((claim,), frozenset(), Lexicon({}, 0), 0.6)
    assert made.basis(["Flut", "tide", 16]) == {"/0": ("c1",), "/1": ("c1",), "/2": ("c1",)}


def test_scripts_without_spaces_are_searched_without_edges() -> None:
    assert ground("芬迪湾的潮汐上升16米").basis(["芬迪湾", 16]) == {"/0": ("c1",), "/1": ("c1",)}


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
))  # fmt: skip
def test_data_has_a_basis_for_every_leaf_or_none_at_all(data: Any) -> None:
    data = json.loads(json.dumps(data))
    try:
        basis = ground(*TEXTS).basis(data)
    except ValueError:
        return
    assert len(basis) == len(list(leaves(data)))
    for (path, leaf), ids in zip(leaves(data), basis.values(), strict=True):
        assert path is not None
        assert ids or leaf is None or isinstance(leaf, bool) or leaf == ""
