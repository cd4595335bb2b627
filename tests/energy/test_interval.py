from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.energy.interval import Energy


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 1e3)), max_size=8))
def test_sums_of_energy_add_their_ends_and_keep_the_weakest_label(parts: list[tuple[float, float, float]]) -> None:
    ordered = [sorted(part) for part in parts]
    energies = [Energy(mean, low, high, "reported") for low, mean, high in ordered]
    total = sum(energies, Energy())
    assert total.low == pytest.approx(sum(e.low for e in energies))
    assert total.high == pytest.approx(sum(e.high for e in energies))
    assert (Energy(1, 1, 1, "modelled") + Energy(1, 1, 1, "reported")).provenance == "modelled"


@pytest.mark.parametrize("bad", [(1, 2, 3), (1, 0, 0.5), (float("nan"), 0, 1), (1, -1, 2)])
def test_joules_that_are_no_interval_are_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="joules"):
        Energy(*bad)


def test_energy_prints_for_people() -> None:
    assert str(Energy(1_234.0, 600.0, 3_000.0, "modelled")) == "1.23 kJ (600 J to 3 kJ, modelled)"
    assert str(Energy(0.0042, 0.0042, 0.0042)) == "4.2 mJ (measured)"
