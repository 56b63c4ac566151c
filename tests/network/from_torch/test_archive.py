"""Files of exported programs are read without running anything that lies in them."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from network.from_torch.models import exported_to
from torch import Tensor, nn

from lipcompare.errors import InvalidInput, UnsupportedOperation
from lipcompare.network.load import load


def _module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12, 4), nn.LeakyReLU(0.1), nn.Linear(4, 3),
    ).double().eval()  # fmt: skip


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
    network = load(exported_to(module, tmp_path / "some model.pt2", shape, dynamic=dynamic))
    assert network.input_shape == shape and network.name == "some model"
    x = torch.randn(4, *shape, dtype=torch.float64)
    torch.testing.assert_close(network.forward(x.flatten(1)), module(x).flatten(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("evil", [False, True])
def test_pt2_of_an_older_torch(tmp_path: Path, evil: bool) -> None:
    """The layout before torch 2.8: the same JSON, weights in a pickle that only tensors may be read from."""
    module = _module()
    new = exported_to(module, tmp_path / "new.pt2", (2, 4, 4))
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
    good = exported_to(_module(), tmp_path / "good.pt2", (2, 4, 4))
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
    path = exported_to(nn.Linear(3, 2).double(), tmp_path / "a.pt2", (3,))
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
        load(exported_to(Writes(), tmp_path / "a.pt2", (3,)))


def test_pt2_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match="not a readable"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/other", b"")
    with pytest.raises(InvalidInput, match="no models"):
        load(path)
    good = exported_to(nn.Linear(3, 2).double(), tmp_path / "good.pt2", (3,))
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
