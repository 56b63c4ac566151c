"""The experiments on time limits and on memory, on the smallest of problems."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from torch import nn

from experiments import limits, memory
from lipcompare.errors import InvalidInput

SMALL = limits.Case(lambda: (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (3,)), 0.1, 5.0, ("lbp",), 2)


def test_a_limit_that_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(limits, "CASES", {"small": SMALL})
    assert limits.main(["--cases", "small"]) == 0
    out = capsys.readouterr().out
    assert "lbp" in out and "Every limit was kept." in out
    with pytest.raises(InvalidInput, match="small"):
        limits.main(["--cases", "smal"])


def run(lower: float, upper: float, *, spent: float = 1.0, message: str = "") -> limits.Run:
    return limits.Run(2.0, spent, (lower,), (upper,), message, 1.0)


def test_what_counts_as_kept() -> None:
    assert run(0.0, 3.0, spent=2.69).kept and not run(0.0, 3.0, spent=2.71).kept
    assert not run(0.0, math.inf).kept and run(0.0, math.inf, message="does not apply").kept
    some = limits.Run(2.0, 1.0, (0.0, 0.0), (3.0, math.inf), "", 1.0)
    assert not some.kept  # nothing is proved of the second example


def test_a_run_that_dies_proves_nothing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object) -> dict[str, object]:
        raise RuntimeError("no luck")

    monkeypatch.setattr(limits, "_run", fails)
    run = limits.timed(SMALL.problem(), "lbp", 1.0)
    assert not run.kept and "without a result" in run.message and "no luck" in capfd.readouterr().err


def test_memory_of_a_child() -> None:
    said, taken = memory.measured(lambda: f"{len(bytearray(200 << 20))}")
    assert said == str(200 << 20) and 150 < taken < 400


def test_files_that_promise_much_are_refused(tmp_path: Path) -> None:
    path = memory.FILES[".pt2 with zeros(1e6, 1e6)"](tmp_path)
    said, taken = memory.measured(lambda: memory._read(path))
    assert said.startswith("refused: ") and "memory limit of 1 GiB" in said and taken < 200


def test_what_is_looser_is_said_example_by_example() -> None:
    """The largest ends over the batch, or those of the example with the widest gap, may be of different examples."""
    runs = {
        name: limits.Run(1.0, 1.0, lower, upper, "", 1.0)
        for name, lower, upper in (
            ("auto", (1.0, 2.0), (3.0, 8.0)), ("lbp", (0.0, 0.0), (2.0, 9.0)), ("attack", (2.0, 0.5), (math.inf,) * 2),
            ("bab", (0.5, 0.0), (3.0, 9.0)), ("sdp", (0.0, 0.0), (3.0, 9.0)),
        )
    }  # fmt: skip
    said = {(row.whole, row.part): row for row in limits.compared(runs)}
    assert said["auto", "lbp"][2:] == (1.5, None) and said["auto", "lbp"].looser
    assert said["auto", "attack"][2:] == (None, 0.5) and said["auto", "attack"].looser
    assert said["auto", "bab"][2:] == (1.0, 2.0) and not said["auto", "bab"].looser
    assert said["auto", "sdp"][2:] == (1.0, None) and not said["auto", "sdp"].looser


def test_both_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    case = limits.Case(SMALL.build, 0.1, 5.0, ("lbp", "sdp", "bab"))
    monkeypatch.setattr(limits, "CASES", {"small": case})
    assert limits.main([]) == 0
    out = capsys.readouterr().out
    assert out.count(" yes ") == 3 and "bab" in out.split("looser")[1] and "no" in out.split("looser")[1]
    assert limits.main(["--only", "looser"]) == 0
    assert "kept" not in capsys.readouterr().out
