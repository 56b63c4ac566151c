"""Records of cells: what is no number is no bound, and a killed run proves nothing."""

from __future__ import annotations

import dataclasses
import math

import nets
import numpy as np
import pytest
from study.cells import study

from lipcompare import api
from lipcompare.budget import TracePoint
from lipcompare.result import Status
from lipcompare.study.definition import plan
from lipcompare.study.record import from_bound, without_result
from lipcompare.study.run import Setting

pytestmark = pytest.mark.usefixtures("misbehaving")


@pytest.mark.parametrize("bad", ["nan", "shape"])
def test_a_bound_that_is_no_number_is_a_row(bad: str) -> None:
    (cell,) = plan([study(Setting("naive"))]).cells.values()
    problem = nets.problem(nets.dense(0), 0.1)
    good = api.bound(problem, "naive")
    upper = np.full_like(good.upper, math.nan) if bad == "nan" else good.upper[0]
    record = from_bound(cell, dataclasses.replace(good, upper=upper, trace=(TracePoint(0.1, 0.0, math.nan),)))
    assert (record.status, record.upper, record.trace) == ("crashed", math.inf, ())
    assert ("NaN" if bad == "nan" else "shape") in record.message


def test_a_trace_after_a_kill_proves_no_lower_bound() -> None:
    (cell,) = plan([study(Setting("naive"))]).cells.values()
    record = without_result(cell, Status.TIME_LIMIT, "Killed.")
    assert (record.lower, record.upper, record.proves) == (0.0, float("inf"), "nothing")
