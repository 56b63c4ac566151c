"""Merging results, and numbers rounded to their proved side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lipcompare
from lipcompare import Bound, Contradiction, InvalidInput, Problem, Status
from lipcompare.budget import TracePoint
from lipcompare.methods.combine import intersect
from lipcompare.result import Witnesses
from lipcompare.rounding import lower_text, upper_text
from lipcompare.witness import check_witnesses


def result(lower, upper, *, name="m", status=Status.COMPLETE, points=None, kinks=None, trace=()) -> Bound:
    lower, upper = np.array(lower, float), np.array(upper, float)
    witnesses = None
    if points is not None:
        at_kink = np.zeros(lower.shape, bool) if kinks is None else np.array(kinks)
        patterns = None if kinks is None else {2: np.full((*lower.shape, 4), points)}
        witnesses = Witnesses(np.full((*lower.shape, 3), float(points)), lower, at_kink, patterns)
    return Bound(lower, upper, status, name, 1.0, options={"a": name}, trace=trace, witnesses=witnesses)


def test_each_end_and_each_witness_is_the_best_one() -> None:
    first = result([[1, 5], [0, 0]], [[10, 9], [8, 7]], name="x", points=1.0)
    second = result(
        [[2, 4], [1, 0]], [[11, 6], [np.inf, 7]], name="y", points=2.0, kinks=[[True, True], [False, False]]
    )
    merged = intersect([first, second, result([[0, 0], [0, 0]], [[9, 9], [9, 9]], name="z")])
    np.testing.assert_array_equal(merged.lower, [[2, 5], [1, 0]])
    np.testing.assert_array_equal(merged.upper, [[9, 6], [8, 7]])
    assert merged.method == "x+y+z"
    assert merged.options == {"x.a": "x", "y.a": "y", "z.a": "z"}
    assert merged.seconds == 3
    np.testing.assert_array_equal(merged.witnesses.values, merged.lower)
    np.testing.assert_array_equal(merged.witnesses.points[..., 0], [[2, 1], [2, 1]])
    np.testing.assert_array_equal(merged.witnesses.at_kink, [[True, False], [False, False]])
    np.testing.assert_array_equal(merged.witnesses.patterns[2][..., 0], [[2, 0], [2, 0]])


def test_the_status_hides_nothing() -> None:
    done, late = result([[1]], [[9]], name="x"), result([[2]], [[8]], name="y", status=Status.TIME_LIMIT)
    merged = intersect([done, late])
    assert merged.status is Status.TIME_LIMIT
    assert merged.sentence.count("time limit") == 2
    assert intersect([done, done]).sentence == Status.COMPLETE.value
    refused = result([[0]], [[np.inf]], status=Status.UNSUPPORTED)
    assert intersect([refused, refused]).status is Status.UNSUPPORTED
    assert intersect([refused, done]).status is Status.COMPLETE
    assert intersect([done, result([[0]], [[np.inf]], status=Status.INTERRUPTED)]).status is Status.INTERRUPTED


def test_ends_that_meet_are_exact() -> None:
    lower, upper = result([[5, 1]], [[np.inf, np.inf]], name="x"), result([[0, 0]], [[5.0001, 3]], name="y")
    assert intersect([lower, upper], gap=1e-4).status is Status.EXACT
    assert intersect([lower, upper], gap=1e-6).status is Status.COMPLETE


def test_traces_follow_each_other() -> None:
    first = result([[0]], [[9]], trace=(TracePoint(0.5, 0, 10), TracePoint(1.0, 0, 9)))
    second = result([[2]], [[np.inf]], trace=(TracePoint(0.25, 2, np.inf),))
    assert intersect([first, second]).trace == ((0.5, 0, 10), (1.0, 0, 9), (1.25, 2, 9), (2.0, 2, 9))


def test_contradictions_and_misuse() -> None:
    with pytest.raises(Contradiction, match=r"x proves at least .*5.*, y at most .*4"):
        intersect([result([[5]], [[9]], name="x"), result([[1]], [[4]], name="y")])
    with pytest.raises(InvalidInput, match="same problem"):
        intersect([result([[5]], [[9]]), result([[5, 5]], [[9, 9]])])
    with pytest.raises(InvalidInput, match="at least one"):
        intersect([])


def test_merged_witnesses_pass_the_check(tmp_path) -> None:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "net.npz", W0=random.normal(size=(6, 3)), W1=random.normal(size=(2, 6)))
    problem = Problem.around(lipcompare.load(tmp_path / "net.npz"), torch.zeros(3, dtype=torch.float64), 0.5)
    seeds = [lipcompare.bound(problem, "attack", samples=16, rounds=2, regions=0, seed=k) for k in range(3)]
    merged = intersect(seeds)
    assert (check_witnesses(problem, merged.witnesses) >= merged.lower * (1 - 1e-12)).all()
    np.testing.assert_array_equal(merged.lower, np.max([s.lower for s in seeds], axis=0))


@given(st.floats(min_value=1e-30, max_value=1e30), st.integers(1, 8))
def test_texts_enclose_the_value(value: float, digits: int) -> None:
    low, high = float(lower_text(value, digits)), float(upper_text(value, digits))
    assert low <= value <= high
    assert high - low <= value * 10.0 ** (1 - digits) * 1.01


def test_texts() -> None:
    assert (lower_text(1.99999), upper_text(1.99999), upper_text(2.000001)) == ("1.9999", "2.0000", "2.0001")
    assert (lower_text(0), upper_text(np.inf), lower_text(0.5)) == ("-", "-", "0.5")
    assert (upper_text(123456789.0), lower_text(1.23456789e-9)) == ("1.2346e+8", "1.2345e-9")
