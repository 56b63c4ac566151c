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


def test_what_counts_as_kept() -> None:
    ends = (0.0, 3.0)
    assert limits.Run(2.0, 2.69, ends, "", 1.0).kept and not limits.Run(2.0, 2.71, ends, "", 1.0).kept
    assert not limits.Run(2.0, 1.0, (0.0, math.inf), "time_limit", 1.0).kept


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


def test_what_is_looser_is_said() -> None:
    runs = {m: limits.Run(1.0, 1.0, ends, "", 1.0) for m, ends in (
        ("auto", (1.0, 3.0)), ("lbp", (0.0, 2.0)), ("attack", (2.0, math.inf)), ("bab", (0.5, 3.0)),
        ("sdp", (0.0, 3.0)))}  # fmt: skip
    said = list(limits.looser(runs))
    assert [words.split(" by ")[0] for words in said] == [
        "auto is looser than lbp", "auto is looser than attack", "bab is looser than lbp"
    ]  # fmt: skip
    assert "50.0%" in said[0] and "from above" in said[0] and "from below" in said[1]


def test_ends_are_compared_with_the_best_that_a_method_contains() -> None:
    runs = {
        name: limits.Run(1.0, 1.0, ends, "", 0.0)
        for name, ends in {"auto": (1.0, 3.0), "lbp": (0.0, 2.0), "attack": (2.0, math.inf), "sdp": (0.0, 2.5)}.items()
    }
    assert list(limits.ratios(runs)) == ["auto over the best that it contains: 1.5000 from above, 0.5000 from below."]
