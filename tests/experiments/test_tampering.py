"""Certificates are changed in every way that is named, and what is false about one is seen."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
from lipverify.certificate import Malformed, read
from lipverify.check import Proved

import lipcompare
from experiments import tampering
from lipcompare import Problem


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One certificate whose trees have several cases, and signs that halving the box settles."""
    path = tmp_path_factory.mktemp("certificates")
    problem = Problem.around(nets.dense(0, (2, 10, 10, 10, 10, 2)), 0.5, 0.2)
    lipcompare.bound(problem, "bab", time_limit=20).certificate(path / "c.npz", time_limit=20)
    return path


@pytest.mark.parametrize("kind", tampering.KINDS)
def test_every_kind_changes_something(kind: str, folder: Path) -> None:
    members = tampering.Members.of(folder / "c.npz")
    before = members.copy()
    made = [tampering.tampered(members, [kind], np.random.default_rng(seed)) for seed in range(3)]
    assert {name for name, _ in filter(None, made)} == {kind} and None not in made
    assert all(data != members.packed() for _, data in filter(None, made)) and members.same(before)


def test_a_case_that_is_gone_leaves_a_whole_file(folder: Path) -> None:
    members, before = tampering.Members.of(folder / "c.npz"), read(folder / "c.npz")
    for seed in range(5):
        made = tampering.tampered(members, ["case"], np.random.default_rng(seed))
        assert made is not None
        after = read(io.BytesIO(made[1]))
        fewer = [len(a.leaves) - len(b.leaves) for a, b in zip(before.proofs, after.proofs, strict=True)]
        assert sorted(fewer) == [*[0] * (len(fewer) - 1), 1]
        (row,) = np.flatnonzero(fewer)
        kept = [(leaf.theta, leaf.lam, leaf.conflict, leaf.cuts) for leaf in before.proofs[row].leaves]
        left = [(leaf.theta, leaf.lam, leaf.conflict, leaf.cuts) for leaf in after.proofs[row].leaves]
        assert any(left == kept[:i] + kept[i + 1 :] for i in range(len(kept)))


def test_what_is_settled_is_changed_in_ways_that_are_read(folder: Path) -> None:
    members, whole = tampering.Members.of(folder / "c.npz"), 0
    assert members.header["settled"]
    for seed in range(40):
        made = tampering.tampered(members, ["settled"], np.random.default_rng(seed))
        assert made is not None
        try:
            read(io.BytesIO(made[1]))
        except Malformed:
            continue
        whole += 1
    assert whole > 20  # most of them reach the checker


def test_nothing_false_is_accepted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tampering.tamper(folder, 40, seed=0, kinds=list(tampering.KINDS), largest=1e9) == 0
    assert "40 tamperings of 1 files" in capsys.readouterr().out


def test_a_checker_that_proves_too_much_is_caught(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the same question by what the file attains, of another one by points of its box."""
    honest = tampering.check

    def wrong(factor: float) -> None:
        def check(file: tampering.Certificate) -> list[Proved]:
            return [row._replace(upper=row.lower * factor) for row in honest(file)]

        monkeypatch.setattr(tampering, "check", check)

    wrong(1 - 1e-12)
    assert tampering.tamper(folder, 3, seed=0, kinds=["claim"], largest=1e9) == 3
    wrong(0.5)
    assert tampering.tamper(folder, 3, seed=0, kinds=["box"], largest=1e9) == 3
    assert "FALSE c.npz, trial 0, box" in capsys.readouterr().out


def test_files_without_what_is_to_be_changed_are_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = tampering.Members.of(folder / "c.npz")
    members.header["settled"] = []
    assert tampering.tampered(members, ["settled"], np.random.default_rng(0)) is None
    assert tampering.tamper(folder, 5, seed=0, kinds=["settled"], largest=10.0) == 0
    assert tampering.tamper(folder, 5, seed=0, kinds=["settled"], largest=1e9, names=["another", "d.npz"]) == 0
    assert capsys.readouterr().out.count("0 tamperings of 0 files") == 2


def test_intervals_that_leave_values_out_are_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = read(folder / "c.npz")
    points, honest = tampering.seen(file, np.random.default_rng(0)), tampering.settled
    assert tampering.outside(file, points) is None
    assert (points.least[8] < points.most[8]).all()

    def narrow(*arguments: Any) -> Any:
        whole = honest(*arguments)
        lower, upper = whole.bounds[8]
        middle = (points.least[8] + points.most[8]) / 2
        return whole._replace(bounds={**whole.bounds, 8: (lower, np.minimum(upper, middle))})

    monkeypatch.setattr(tampering, "settled", narrow)
    assert tampering.outside(file, points) == "values before node 8 leave their intervals"
    known = [(0.0, np.inf)] * len(file.proofs)
    tally = tampering.Tally()
    assert tampering.judge(file, known, (folder / "c.npz").read_bytes(), 0, tally) and tally.false == 1
