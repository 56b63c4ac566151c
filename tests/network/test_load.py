"""One entry point: kinds of files, and a sentence for each way they can be wrong."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lipcompare.errors import InvalidInput, UnsupportedOperation
from lipcompare.network.load import load

SHARED = Path(__file__).parents[2] / ".." / "shared"


def _module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12, 4), nn.LeakyReLU(0.1), nn.Linear(4, 3),
    ).double().eval()  # fmt: skip


def _save(module: nn.Module, path: Path, shape: tuple[int, ...], *, dynamic: bool = False) -> Path:
    example = torch.zeros(2 if dynamic else 1, *shape, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},) if dynamic else None
        )
        torch.export.save(program, path)
    return path


class Pieces(nn.Module):
    """Operators with several results, lists of operands, numbers from shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 4).double()
        self.register_buffer("shift", torch.linspace(0, 1, 4, dtype=torch.float64).reshape(2, 2).T)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.dense(x.reshape(x.shape[0], -1)).chunk(2, 1)
        low, _ = torch.stack([first, second], -1).min(-1)
        y = torch.cat(
            [torch.maximum(first, second), low - self.shift.reshape(-1)[:2], x[:, 0, :2].to(torch.float64)], 1
        )
        return y.view(y.size(0), -1)[:, torch.tensor([3, 0, 1, 5])].clamp(-1, float("inf"))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("module", "shape"), [(_module(), (2, 4, 4)), (Pieces(), (2, 3))], ids=["cnn", "pieces"])
def test_pt2(tmp_path: Path, module: nn.Module, shape: tuple[int, ...], dynamic: bool) -> None:
    network = load(_save(module, tmp_path / "some model.pt2", shape, dynamic=dynamic))
    assert network.input_shape == shape and network.name == "some model"
    x = torch.randn(4, *shape, dtype=torch.float64)
    torch.testing.assert_close(network.forward(x.flatten(1)), module(x).flatten(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("evil", [False, True])
def test_pt2_of_an_older_torch(tmp_path: Path, evil: bool) -> None:
    """The layout before torch 2.8: the same JSON, weights in a pickle that only tensors may be read from."""
    module = _module()
    new = _save(module, tmp_path / "new.pt2", (2, 4, 4))
    weights = io.BytesIO()
    torch.save({**module.state_dict(), "other": Path("x")} if evil else module.state_dict(), weights)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(tmp_path / "old.pt2", "w") as target:
        (graph,) = (n for n in source.namelist() if n.endswith("models/model.json"))
        target.writestr("serialized_exported_program.json", source.read(graph))
        target.writestr("serialized_state_dict.pt", weights.getvalue())
        target.writestr("serialized_constants.pt", b"")
    if evil:
        with pytest.raises(InvalidInput, match="could run code"):
            load(tmp_path / "old.pt2")
    else:
        x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
        y = load(tmp_path / "old.pt2").forward(x.flatten(1))
        torch.testing.assert_close(y, module(x), rtol=1e-9, atol=1e-9)


class Evil:
    """Unpickling it leaves a trace."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path(EVIDENCE),))  # type: ignore[return-value]


EVIDENCE = ""


def test_pt2_runs_nothing_that_is_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickled weights are refused, and pickles that are not needed are never opened."""
    evidence = tmp_path / "evidence"
    monkeypatch.setitem(globals(), "EVIDENCE", str(evidence))
    good = _save(_module(), tmp_path / "good.pt2", (2, 4, 4))
    payload = pickle.dumps(Evil())
    for replaced, pickled in (("data/sample_inputs/model.pt", False), ("data/weights/weight_0", True)):
        bad = tmp_path / "bad.pt2"
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name.endswith(replaced):
                    content = payload
                if pickled and name.endswith("model_weights_config.json"):
                    config = json.loads(content)
                    config["config"]["0.weight"]["use_pickle"] = True
                    content = json.dumps(config).encode()
                target.writestr(name, content)
        if pickled:
            with pytest.raises(InvalidInput, match="could run code"):
                load(bad)
        else:
            assert load(bad).out_size == 3
        assert not evidence.exists()
    pickle.loads(payload)
    assert evidence.exists()


def test_pt2_with_a_compiled_library_is_refused(tmp_path: Path) -> None:
    path = _save(nn.Linear(3, 2).double(), tmp_path / "a.pt2", (3,))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/data/aotinductor/model/library.so", b"")
    with pytest.raises(InvalidInput, match="compiled library"):
        load(path)


def test_pt2_in_place_on_a_view_is_refused(tmp_path: Path) -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.clone()
            y[:, 0] = 1.0
            return y.relu()

    with pytest.raises(UnsupportedOperation, match="in place"):
        load(_save(Writes(), tmp_path / "a.pt2", (3,)))


def test_pt2_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match="not a readable"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/other", b"")
    with pytest.raises(InvalidInput, match="no models"):
        load(path)
    good = _save(nn.Linear(3, 2).double(), tmp_path / "good.pt2", (3,))
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"" if name.endswith("weight_0") else source.read(name))
    with pytest.raises(InvalidInput, match="too short"):
        load(path)


class Huge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(10, 10)[0, 0]


def _rewritten(source: Path, target: Path, record: str, old: str, new: str) -> Path:
    """A .pt2 file with something else in one of its records."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name.endswith(record):
                assert old.encode() in content
                content = content.replace(old.encode(), new.encode())
            after.writestr(name, content)
    return target


def test_pt2_sizes_are_checked_before_they_are_allocated(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(Huge(), (torch.zeros(1, 3),)), tmp_path / "a.pt2")
        torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(1, 3),)), tmp_path / "b.pt2")
    zeros = _rewritten(tmp_path / "a.pt2", tmp_path / "c.pt2", "model.json", "[10, 10]", "[1000000, 1000000]")
    sizes = '"sizes": [{"as_int": %d}, {"as_int": %d}]'
    strides = (
        ', "requires_grad": true, "device": {"type": "cpu", "index": null}, "strides": [{"as_int": %d}, {"as_int": %d}]'
    )
    huge = _rewritten(tmp_path / "b.pt2", tmp_path / "d.pt2", "weights_config.json", sizes % (2, 3) + strides % (3, 1),
                      sizes % (10**6, 10**6) + strides % (0, 0))  # fmt: skip
    bomb = tmp_path / "e.pt2"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/models/model.json", b"[" + b"0," * (50 << 20) + b"0]")
    for path in (zeros, huge, bomb):
        with pytest.raises(InvalidInput, match="memory limit of 1 GiB"):
            load(path)


def test_npz_sizes_are_checked_before_they_are_allocated(tmp_path: Path) -> None:
    """Eighty kilobytes that are zeros of 80 MiB, and a header that promises more than there is."""
    zeros = np.zeros((1, 10 << 20))
    np.savez_compressed(tmp_path / "zeros.npz", W0=zeros)
    assert (tmp_path / "zeros.npz").stat().st_size < 200 << 10
    with pytest.raises(InvalidInput, match=r"shape \(1, 10485760\) takes 80 MiB, .* memory limit of 100 MiB"):
        load(tmp_path / "zeros.npz", memory=100 << 20)
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": (10**6, 10**6), "fortran_order": False, "descr": "<f8"})
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("W0.npy", buffer.getvalue())
    with pytest.raises(InvalidInput, match="cut off"):
        load(tmp_path / "short.npz")


def test_fortran_order(tmp_path: Path) -> None:
    weight = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    network = load(_npz(tmp_path / "a.npz", W0=weight))
    np.testing.assert_array_equal(network.forward(torch.eye(3, dtype=torch.float64)).numpy(), weight.T)


def test_names_of_any_kind(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="check the path"):
        load(tmp_path / ("long" * 100 + ".npz"))
    with pytest.raises(InvalidInput, match="check the path"):
        load("zero\0byte.npz")
    odd = _npz(tmp_path / "net.npz", W0=np.ones((1, 2))).rename(tmp_path / "n\udcff.npz")
    load(odd).name.encode()
    with pytest.raises(InvalidInput, match="check the path") as caught:
        load(tmp_path / "\udcff.npz")
    str(caught.value).encode()


def _npz(path: Path, **arrays: np.ndarray) -> Path:  # type: ignore[type-arg]
    np.savez(path, **arrays)
    return path


def test_npz(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    w = [rng.normal(size=s) for s in ((4, 3), (5, 4), (2, 5))]
    b = [rng.normal(size=len(m)) for m in w]
    arrays = {f"{n}{k}": a for n, list_ in (("W", w), ("b", b)) for k, a in enumerate(list_)}
    network = load(_npz(tmp_path / "net.npz", **arrays, x0=np.zeros(3)))
    x = rng.normal(size=3)
    y = w[2] @ np.maximum(w[1] @ np.maximum(w[0] @ x + b[0], 0) + b[1], 0) + b[2]
    torch.testing.assert_close(network.forward(torch.from_numpy(x)), torch.from_numpy(y), rtol=1e-12, atol=1e-12)
    assert (network.input_shape, network.output_shape, network.name) == ((3,), (2,), "net")
    assert load(network) is network and load(network, name="other").name == "other"


@pytest.mark.skipif(not (SHARED / "reference").is_dir(), reason="the reference networks are not here")
def test_npz_of_others() -> None:
    paths = [*(SHARED / "reference").glob("*.npz"), *(SHARED / "data" / "networks").glob("**/*.npz")]
    for path in paths:
        network = load(path)
        with np.load(path) as arrays:
            layers = [(arrays[f"W{k}"], arrays[f"b{k}"]) for k in range(len(network.activations) + 1)]
        y = np.linspace(0, 1, network.in_size)
        for k, (w, b) in enumerate(layers):
            y = w @ (np.maximum(y, 0) if k else y) + b
        x = torch.linspace(0, 1, network.in_size, dtype=torch.float64)
        torch.testing.assert_close(network.forward(x), torch.from_numpy(y), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"A": np.zeros(2)}, "no layers W0"),
        ({"W1": np.zeros((2, 2))}, "no layers W0, b0, W1, b1, ...: found W1"),
        ({"W0": np.zeros((2, 3)), "b0": np.zeros(3)}, r"W0 is \(2, 3\), b0 is \(3,\)"),
        ({"W0": np.zeros((2, 3)), "W1": np.zeros((2, 3))}, "its input has 2 entries"),
        ({"W0": np.zeros((2, 3)), "b0": np.zeros(3), "W1": np.zeros((3, 1))}, "as Keras has them: save each as W.T"),
        ({"W0": np.zeros((2, 3), complex)}, "entries of type complex128"),
        ({"W0": np.array([["1.5", "2"]])}, "entries of type <U3"),
        ({"W0": np.array([["2020-01-01"]], "datetime64[D]")}, "entries of type datetime64"),
        ({"W0": np.zeros((2, 3), [("a", float)])}, "entries of type"),
        ({"W0": np.zeros((0, 3))}, "a layer has inputs and outputs"),
        ({"W0": np.array([[np.inf]])}, "NaN or infinite entries"),
        ({"W0": np.array([None])}, "could run code"),
    ],
)
def test_bad_npz(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidInput, match=words):
        load(_npz(tmp_path / "a.npz", **arrays))


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
    sources = [module, program, tmp_path / "a.onnx", str(tmp_path / "a.pt2"), _npz(tmp_path / "a.npz", **values)]
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
    file = _save(whole, tmp_path / "a.pt2", (3,))
    x = torch.randn(3, dtype=torch.float64)
    for source in (whole, file):
        torch.testing.assert_close(load(source).forward(x), whole(x))
        torch.testing.assert_close(load(source, logits=True).forward(x), body(x))
    torch.testing.assert_close(load(tmp_path / "a.onnx").forward(x), head(x.sum().expand(2)))
    torch.testing.assert_close(load(tmp_path / "a.onnx", logits=True).forward(x), x.sum().expand(2))
    with pytest.raises(InvalidInput, match="the model ends in 'linear': drop it"):
        load(body, logits=True)
