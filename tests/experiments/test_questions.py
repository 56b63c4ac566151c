"""The questions' table, on its smallest members."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import questions


def test_the_whole_space_agrees_with_brute_force(capsys: pytest.CaptureFixture[str]) -> None:
    ((case, method, _, result),) = questions.everywhere(2)
    assert (case, method) == ("2 tiny networks", "bab")
    assert float(result.removeprefix("brute force is missed by ").removesuffix(" at most")) < 1e-9


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert questions.main(["--only", "spectral", "--reference", str(tmp_path)]) == 0
    assert "no " in capsys.readouterr().out
    assert questions.main(["--only", "spektral"]) == 2
    assert "Did you mean 'spectral'" in capsys.readouterr().err
