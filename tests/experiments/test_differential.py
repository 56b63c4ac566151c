"""What the differential run finds and counts, on bounds made wrong on purpose."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from unittest import mock

import mpmath as mp
import numpy as np
import pytest

import lipcompare
from experiments.differential import __main__ as differential
from experiments.differential.cases import SMOOTH, Spec
from experiments.differential.derivatives import FUNCTIONS, derivatives
from lipcompare.questions.jacobian import jacobian_bounds


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_formulas_are_derivatives(name: str) -> None:
    function, slope = FUNCTIONS[name]
    with mp.workdps(40):
        for z in (mp.mpf("-3.3"), mp.mpf("-0.2"), mp.mpf("2.5")):
            assert abs(mp.diff(function, z) - slope(z)) < mp.mpf(10) ** -18


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"exp"}))
def test_formulas_have_values_far_out(name: str) -> None:
    with mp.workdps(60):
        for z in (mp.mpf("-1e200"), mp.mpf("1e200")):
            assert all(mp.isfinite(of(z)) for of in FUNCTIONS[name])


@pytest.mark.parametrize("kind", [*SMOOTH, "softmax", "sorting", "max pooling"])
def test_derivatives_lie_in_the_bounds_on_them(kind: str) -> None:
    problem = Spec(kind, 4, "inf", "float64", 2).problem()
    found, bounds = derivatives(problem), jacobian_bounds(problem, "ibp")
    least, largest = found.ranges()
    assert found.inside.any() and (bounds.lower <= least).all() and (bounds.upper >= largest).all()
    assert np.isfinite(largest).all() and (found.lower <= found.upper).all()


def cut(*arguments: Any, **options: Any) -> lipcompare.Bound:
    found = BOUND(*arguments, **options)
    return dataclasses.replace(found, upper=found.upper / 1000, lower=np.zeros_like(found.lower))


BOUND = lipcompare.bound


@pytest.mark.parametrize(("kind", "trouble"), [("plain", "under the truth"), ("smooth, plain", "under a derivative")])
def test_a_bound_under_the_truth_is_found(kind: str, trouble: str, tmp_path: Path) -> None:
    tally, spec = differential.Tally(tmp_path), Spec(kind, 2, "inf", "float64", 2, "lbp")
    differential.examine(spec, tally)
    assert not tally.found and tally.cases[kind, "float64"] == tally.runs["lbp", kind, "float64"] == 2
    with mock.patch("lipcompare.bound", cut):
        differential.examine(spec, tally)
    assert any(trouble in finding["trouble"] for finding in tally.found)
    assert json.loads((tmp_path / "00001.json").read_text())["kind"] == kind
    assert f"| lbp | {0} + 4 |" in tally.table()


def test_a_truth_that_takes_too_long_is_counted_and_done_without(tmp_path: Path) -> None:
    tally = differential.Tally(tmp_path)
    with mock.patch.object(differential, "LOOKS", 1), mock.patch("lipcompare.bound", cut):
        differential.examine(Spec("plain", 2, "inf", "float64", 2, "lbp"), tally)
    assert tally.unknown["plain"] == 2
    assert any("under a derivative" in finding["trouble"] for finding in tally.found)
