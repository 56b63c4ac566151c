"""Results: what counts as proved, and how it is told."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np

from lipcompare import Bound, Status
from lipcompare.result import Attained, Witness, Witnesses, closed, proved

RESULT = Bound(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[3.0, 2.5], [np.inf, 1.0]]), Status.TIME_LIMIT, "m", 0.5)


def test_what_is_proved_of_the_largest_row() -> None:
    assert RESULT.overall_lower.tolist() == [2.0, 0.0] and RESULT.overall_upper.tolist() == [3.0, math.inf]
    np.testing.assert_allclose(RESULT.gap, [1 / 3, np.inf])
    assert RESULT.proves == "interval"
    assert RESULT.sentence == "Stopped at the time limit. The interval so far holds."
    nothing = dataclasses.replace(RESULT, lower=np.zeros((1, 1)), upper=np.full((1, 1), np.inf), detail="Why.")
    assert nothing.proves == "nothing" and nothing.sentence.endswith("Nothing was proved. Why.")
    stopped = dataclasses.replace(RESULT, status=Status.UNSUPPORTED, detail="No integers here.")
    assert stopped.sentence == "No integers here."  # it did apply, as far as it went
    assert dataclasses.replace(nothing, status=Status.UNSUPPORTED).sentence.startswith("The method does not apply")
    content = json.loads(json.dumps(RESULT.to_dict(), allow_nan=False))
    assert content["upper"] == [3.0, None] and content["lower"] == [2.0, None]


def test_zero_is_a_value_where_the_upper_bound_says_so() -> None:
    lower, upper = proved(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, np.inf]))
    np.testing.assert_array_equal(lower, [0.0, np.nan, 1.0])
    np.testing.assert_array_equal(upper, [0.0, 1.0, np.nan])


def test_closed_takes_finite_ends_of_every_example() -> None:
    low, high = np.array([[1.0, 0.5], [0.0, 0.0]]), np.array([[1.01, 9.0], [0.0, 0.0]])
    assert not closed(low, high, 0.02)
    high[0, 1] = 1.0
    assert closed(low, high, 0.02) and not closed(low, high, 0.001)
    high[1, 0] = np.inf
    assert not closed(low, high, 0.5)


def test_only_better_witnesses_that_are_numbers_are_taken_up() -> None:
    attained = Attained(2, [Witness(0, 1.0, np.zeros(1))])
    assert not any(attained.note(Witness(0, value, np.ones(1))) for value in (0.5, 1.0, math.inf, math.nan))
    assert attained.note(Witness(1, 3.0, np.ones(1))) and attained.best == 3.0
    other = Attained(2, [Witness(0, 2.0, np.ones(1))])
    other.learn(attained)
    assert other.lower.tolist() == [2.0, 3.0]


def test_slopes_of_a_witness_are_those_of_kinks() -> None:
    kinks = np.array([[True, False]])
    patterns = {2: np.array([[[0.0, 1.0], [1.0, 1.0]]]), 4: np.array([[[0.5], [0.25]]])}
    first, second = Witnesses(np.zeros((1, 2, 3)), np.array([[1.0, 2.0]]), kinks, patterns).example(0)
    assert first.slopes is not None and first.slopes.tolist() == [0.0, 1.0, 0.5] and second.slopes is None
    assert (second.row, second.value) == (1, 2.0)
