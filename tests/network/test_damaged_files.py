"""Files with bytes changed at random are read, or refused in one sentence; experiments.mutations tries thousands."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.mutations import KINDS, damage, good_files
from lipcompare.cli.input import array
from lipcompare.cli.vnnlib import read_vnnlib
from lipcompare.errors import LipcompareError
from lipcompare.network.load import load

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return good_files(tmp_path_factory.mktemp("good"))


def _read(path: Path) -> None:
    if path.suffix in (".vnnlib", ".gz"):
        read_vnnlib(path)
    elif path.suffix == ".npy":
        array(str(path), files_only=True)
    else:
        load(path)


def test_the_good_files_are_read(good: list[Path]) -> None:
    for path in good:
        _read(path)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_damage_is_one_sentence(good: list[Path], kind: str, seed: int) -> None:
    rng = random.Random(seed)
    path = rng.choice([p for p in good if f".{kind}" in p.suffixes])
    target = path.parent / f"damaged{''.join(path.suffixes)}"
    damage(path, target, rng)
    said = "read"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _read(target)
    except LipcompareError as error:
        said = str(error)
    target.unlink()
    assert said.strip() and "\n" not in said
