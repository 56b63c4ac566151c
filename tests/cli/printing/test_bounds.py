"""Numbers as they are printed: rounded to the side on which they stay proved, and nothing proved is a dash."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path

import nets
import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table

from lipcompare import Bound, InvalidInput, NormBall, Space, Status
from lipcompare.cli import errors
from lipcompare.cli.printing import bounds

PROBLEM = nets.problem(nets.dense(0, (3, 4, 2)), 0.1)
PROVED = Bound(np.array([[1.23456789, 0.0]]), np.array([[2.0, 0.0]]), Status.COMPLETE, "scripted", 0.25)


def printed(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(table)
    return out.getvalue()


def with_status(status: Status, *, proves: bool) -> Bound:
    ends = (1.0, 2.0) if proves else (0.0, math.inf)
    return dataclasses.replace(PROVED, lower=np.array([[ends[0]]]), upper=np.array([[ends[1]]]), status=status)


def test_ends_are_rounded_outward_and_zero_is_exact() -> None:
    assert bounds.interval_cells(1.234567, 1.234567, 0.0) == ("1.2345", "1.2346", "0.00%")
    assert bounds.interval_cells(0.0, math.inf, math.inf) == ("-", "-", "-")
    assert bounds.interval_cells(0.0, 0.0, 0.0) == ("0", "0", "0.00%")
    assert bounds.interval_cells(0.0, 2.0, 1.0) == ("-", "2", "-")
    assert (bounds.relative_gap(1, 2), bounds.relative_gap(0, 0), bounds.relative_gap(0, math.inf)) == (
        0.5,
        0,
        math.inf,
    )


def test_a_result_has_a_line_per_functional_and_one_for_the_largest() -> None:
    lines = printed(bounds.result_table(PROBLEM, PROVED)).splitlines()
    assert [line.split()[0] for line in lines if line.strip()[:1].isalnum()][-1] == "largest"
    assert any(line.split()[1:3] == ["1.2345", "2"] for line in lines)
    together = printed(
        bounds.comparison_table(PROBLEM, [PROVED, dataclasses.replace(PROVED, upper=PROVED.upper / 1.5)])
    )
    assert together.splitlines()[-2].split()[:3] == ["together", "1.2345", "1.3334"]


def test_results_that_exclude_each_other_are_said_to() -> None:
    above = dataclasses.replace(PROVED, lower=np.array([[3.0, 0.0]]), upper=np.array([[4.0, 0.0]]))
    lines = printed(bounds.comparison_table(PROBLEM, [PROVED, above])).splitlines()
    assert any(line.split()[:4] == ["together", "-", "-", "-"] for line in lines)


@pytest.mark.parametrize(
    ("status", "proves", "code"),
    [
        (Status.COMPLETE, True, errors.OK),
        (Status.UNAVAILABLE, False, errors.UNAVAILABLE),
        (Status.UNAVAILABLE, True, errors.OK),
        (Status.OUT_OF_MEMORY, False, errors.OUT_OF_MEMORY),
        (Status.CRASHED, True, errors.UNEXPECTED),
        (Status.INTERRUPTED, True, errors.INTERRUPTED),
    ],
)
def test_exit_codes(status: Status, proves: bool, code: int) -> None:
    result = with_status(status, proves=proves)
    assert bounds.exit_code([result]) == code
    assert bounds.exit_code([result, PROVED]) == (code if code == errors.INTERRUPTED else errors.OK)


def test_json_is_strict_and_words_say_where() -> None:
    assert json.loads(bounds.json_text(bounds.as_json(PROBLEM, with_status(Status.COMPLETE, proves=False))))
    assert bounds.numbers(np.array([1.0, math.inf, math.nan])) == [1.0, None, None]
    ball = dataclasses.replace(PROBLEM, box=NormBall.around(torch.zeros(1, 3, dtype=torch.float64), 0.5, 2))
    assert bounds.radii(ball.box) == [0.5] and bounds.radii(PROBLEM.box) == [pytest.approx(0.1)]
    assert "over all inputs: if" in bounds.meaning(dataclasses.replace(PROBLEM, box=Space.of(3)))
    assert "over the box" in bounds.meaning(PROBLEM) and "over the ball" in bounds.meaning(ball)
    assert (bounds.seconds_text(0.0123), bounds.seconds_text(2.0)) == ("12 ms", "2.0 s")


def test_files_are_written_by_name_or_refused_in_a_sentence(tmp_path: Path) -> None:
    bounds.write_witness(str(tmp_path / "deep" / "w"), PROVED)
    with np.load(tmp_path / "deep" / "w") as arrays:
        assert sorted(arrays) == ["lower", "upper"] and arrays["upper"].tolist() == [[2.0, 0.0]]
    with pytest.raises(InvalidInput, match="Cannot write"):
        bounds.write_arrays(str(tmp_path), {})
