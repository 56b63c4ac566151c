"""One entry point: kinds of files, and a sentence for each way they can be wrong."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from network.from_torch.models import exported_to
from torch import nn

from lipcompare.errors import InvalidInput
from lipcompare.network.load import load


def test_names_of_any_kind(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="check the path"):
        load(tmp_path / ("long" * 100 + ".npz"))
    with pytest.raises(InvalidInput, match="check the path"):
        load("zero\0byte.npz")
    np.savez(tmp_path / "net.npz", W0=np.ones((1, 2)))
    odd = (tmp_path / "net.npz").rename(tmp_path / "n\udcff.npz")
    load(odd).name.encode()
    with pytest.raises(InvalidInput, match="check the path") as caught:
        load(tmp_path / "\udcff.npz")
    str(caught.value).encode()


def test_bad_sources(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.pt2", "a.npz"):
        with pytest.raises(InvalidInput, match="is not a file"):
            load(tmp_path / name)
        (tmp_path / name).mkdir()
        with pytest.raises(InvalidInput, match="is not a file"):
            load(tmp_path / name)
    with pytest.raises(InvalidInput, match="is a pickle, and loading it could run code"):
        load(tmp_path / "model.pt")
    with pytest.raises(InvalidInput, match=r"unknown kind of file '.onxn'. Did you mean '.onnx'"):
        load(tmp_path / "model.onxn")
    with pytest.raises(InvalidInput, match="Cannot read a network from int"):
        load(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="positive entries"):
        load(nn.Linear(3, 2), input_shape=(0,))
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(InvalidInput, match="not a readable"):
        load(tmp_path / "b.npz")
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    (tmp_path / "b.npz").write_bytes(buffer.getvalue())
    with pytest.raises(InvalidInput, match="not a readable"):
        load(tmp_path / "b.npz")


def test_all_sources_give_the_same_network(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    torch.manual_seed(0)
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    module = nn.Sequential(first, nn.ReLU(), second)
    arrays = {"W0": first.weight, "b0": first.bias, "W1": second.weight, "b1": second.bias}
    values = {k: v.detach().numpy() for k, v in arrays.items()}
    nodes = [onnx.helper.make_node("Gemm", ["x", "W0", "b0"], ["h"], transB=1), onnx.helper.make_node("Relu", ["h"],
        ["r"]),
             onnx.helper.make_node("Gemm", ["r", "W1", "b1"], ["y"], transB=1)]  # fmt: skip
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [info("x", 1, ["N", 3])], [info("y", 1, ["N", 2])],
                                   [onnx.numpy_helper.from_array(v, k) for k, v in values.items()])  # fmt: skip
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "a.onnx",
    )
    program = torch.export.export(module, (torch.zeros(1, 3),))
    torch.export.save(program, tmp_path / "a.pt2")
    np.savez(tmp_path / "a.npz", **values)
    sources = [module, program, tmp_path / "a.onnx", str(tmp_path / "a.pt2"), tmp_path / "a.npz"]
    x = torch.randn(5, 3, dtype=torch.float64)
    results = [load(source).forward(x) for source in sources]
    assert all(torch.equal(results[0], r) for r in results[1:])


@pytest.mark.parametrize("head", [nn.Softmax(-1), nn.LogSoftmax(-1)])
def test_a_softmax_at_the_end_can_be_left_out(tmp_path: Path, head: nn.Module) -> None:
    onnx = pytest.importorskip("onnx")
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    whole = nn.Sequential(*body, head)
    kind = type(head).__name__
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node(kind, ["h"], ["s"]),
             onnx.helper.make_node("Identity", ["s"], ["y"])]  # fmt: skip
    info, weight = onnx.helper.make_tensor_value_info, np.ones((3, 2), np.float32)
    graph = onnx.helper.make_graph(nodes, "g", [info("x", 1, [1, 3])], [info("y", 1, [1, 2])],
                                   [onnx.numpy_helper.from_array(weight, "w")])  # fmt: skip
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "a.onnx",
    )
    file = exported_to(whole, tmp_path / "a.pt2", (3,))
    x = torch.randn(3, dtype=torch.float64)
    for source in (whole, file):
        torch.testing.assert_close(load(source).forward(x), whole(x))
        torch.testing.assert_close(load(source, logits=True).forward(x), body(x))
    torch.testing.assert_close(load(tmp_path / "a.onnx").forward(x), head(x.sum().expand(2)))
    torch.testing.assert_close(load(tmp_path / "a.onnx", logits=True).forward(x), x.sum().expand(2))
    with pytest.raises(InvalidInput, match="the model ends in 'linear': drop it"):
        load(body, logits=True)
