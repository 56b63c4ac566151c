"""Files with bytes changed at random are read, or refused in one sentence; experiments.mutations tries thousands."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.mutations import KINDS, damage, good_files
from lipcompare.cli.input import array
from lipcompare.cli.vnnlib import read_vnnlib
from lipcompare.errors import InvalidInput, LipcompareError
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


def test_an_encrypted_archive_is_one_sentence(good: list[Path], tmp_path: Path) -> None:
    content = bytearray(next(p for p in good if p.name == "a.npz").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # of a member, and in the list of members
        at = content.find(signature)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(signature, at + 4)
    path = tmp_path / "secret.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"encrypted.*numpy\.savez"):
        load(path)


def test_an_onnx_file_without_an_operator_set_is_one_sentence(good: list[Path], tmp_path: Path) -> None:
    import onnx

    model = onnx.load(next(p for p in good if p.name == "a.onnx"))
    del model.opset_import[:]
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InvalidInput, match=r"not specified.*export the model again"):
        load(tmp_path / "m.onnx")


def test_bfloat16_is_read(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    kind, node = TensorProto.BFLOAT16, helper.make_node
    weights = helper.make_tensor("w", kind, [2, 2], [1.0, 2.0, 3.0, -4.0])
    ends = [helper.make_tensor_value_info(name, kind, [1, 2]) for name in "xy"]
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    found = load(tmp_path / "m.onnx").forward(torch.tensor([[1.0, 0.5]], dtype=torch.float64))
    assert found.tolist() == [[2.5, 0.0]]
