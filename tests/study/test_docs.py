"""What docs/study.md shows runs as it stands, and what it names is there."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import nets
import numpy as np
import pytest

import lipcompare
from figures import everything
from lipcompare import METHODS
from lipcompare.store.database import Store

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "study.md").read_text()
PROBLEM, METHOD = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_study_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "demo").mkdir()
    weights = {"W0": random.normal(size=(4, 3)), "b0": np.zeros(4), "W1": random.normal(size=(2, 4)), "b1": np.zeros(2)}
    np.savez(tmp_path / "demo" / "digits_mlp.npz", **weights)
    monkeypatch.chdir(tmp_path)
    exec(compile(PROBLEM, "docs/study.md", "exec", dont_inherit=True), {})
    with Store(tmp_path / "mine.sqlite", read_only=True) as store:
        frame = store.frame("mine")
    assert len(frame) == 8 and set(frame["status"]) <= {"complete", "exact"}
    assert frame["series"].unique().tolist() == ["lbp", "sdp", "sdp cuts=100", "bab"]


def test_the_method_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(METHODS)
    try:
        exec(compile(METHOD, "docs/study.md", "exec", dont_inherit=True), {})
        problem = nets.problem(nets.dense(0), 0.1)
        mine, naive = (lipcompare.bound(problem, name).overall_upper for name in ("product", "naive"))
        assert mine == naive
    finally:
        for name in set(METHODS) - before:
            METHODS.unregister(name)


def test_every_figure_and_experiment_is_explained() -> None:
    named = set(re.findall(r"`([a-z_*]+)`", TEXT))
    assert set(everything.DRAWS) <= named
    for name in re.findall(r"python -m ([a-z_]+\.[a-z_]+)", TEXT):
        assert find_spec(name) is not None, name
