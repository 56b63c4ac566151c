"""The models' sizes, the training protocol, its cache, and the demo."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import lipcompare
from experiments import demo, train
from experiments.data import clusters
from experiments.models import MODELS, cnn, mlp, model
from experiments.train import Protocol, fingerprint, trained
from lipcompare.errors import InvalidInput

DENSE_INPUTS = {
    "mnist_cnn": 8 * 22 * 22,
    "cifar_cnn4": 32 * 28 * 28,
    "cifar_cnn6": 32 * 24 * 24,
    "tiny_cnn4": 32 * 16 * 16,
    "tiny_cnn6": 32 * 4 * 4,
    "cnn_w8": 8 * 16,
    "adult_mlp": 108,
    "mlp_d8_w32": 16,
}
"""Inputs of the first dense layer, as the paper's table has them."""


@pytest.mark.parametrize(("name", "inputs"), DENSE_INPUTS.items())
def test_architectures(name, inputs) -> None:
    module = MODELS[name].build()
    dense = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
    assert dense[0].in_features == inputs
    outputs = module(torch.zeros(2, *MODELS[name].input_shape)).shape
    assert outputs == (2, {"t": 200, "a": 2}.get(name[0], 10))
    if name == "mlp_d8_w32":
        assert len(dense) == 8


def test_other_members_of_a_family_have_names() -> None:
    assert model("mlp3_w7").build()[1].out_features == 7
    with pytest.raises(InvalidInput, match="Did you mean 'mnist_mlp'"):
        model("mnist_mpl")
    with pytest.raises(InvalidInput, match="Unknown model 'mlp_d1_w32'"):
        model("mlp_d1_w32")


def test_training_is_reproducible_and_cached(tmp_path, monkeypatch) -> None:
    protocol = Protocol(epochs=2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    first = trained("mlp3_w16", protocol, cache=tmp_path / "a")
    assert threads == [1, 5]  # the order of sums is the same on every number of cores
    again = trained("mlp3_w16", protocol, cache=tmp_path / "b")
    for ours, theirs in zip(first.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    monkeypatch.setattr(train, "fit", None)  # a cached model is read, not trained
    cached = trained("mlp3_w16", protocol, cache=tmp_path / "a")
    assert cached.accuracy == first.accuracy
    assert not cached.module.training
    assert torch.equal(cached.module[1].weight, first.module[1].weight)


def test_a_run_that_dies_as_it_saves_leaves_no_half_of_a_model(tmp_path, monkeypatch) -> None:
    save = torch.save

    def half(state, path) -> None:
        save(state, path)
        os.truncate(path, os.path.getsize(path) // 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        trained("mlp3_w16", Protocol(epochs=0), cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert trained("mlp3_w16", Protocol(epochs=0), cache=tmp_path).path.exists()


def test_the_fingerprint_follows_what_determines_the_model() -> None:
    data, other = clusters(4, points=50), clusters(4, points=50, seed=1)
    base = fingerprint(mlp(4, 3, 10), data, Protocol())
    assert base == fingerprint(mlp(4, 3, 10), data, Protocol())
    changed = [
        fingerprint(mlp(4, 5, 10), data, Protocol()),
        fingerprint(mlp(4, 3, 10), other, Protocol()),
        fingerprint(mlp(4, 3, 10), data, Protocol(seed=1)),
        fingerprint(mlp(4, 3, 10), data, Protocol(epochs=3)),
    ]
    assert len({base, *changed}) == 5


def test_augmentation_crops_with_a_border_and_flips() -> None:
    x = torch.arange(1.0, 3 * 8 * 8 + 1).reshape(1, 3, 8, 8).repeat(64, 1, 1, 1)
    out = train._augmented(x, torch.Generator().manual_seed(0))
    assert out.shape == x.shape
    wide = torch.nn.functional.pad(x[0], (4, 4, 4, 4))
    crops = [w[:, i : i + 8, j : j + 8] for w in (wide, wide.flip(-1)) for i in range(9) for j in range(9)]
    assert all(any(torch.equal(image, crop) for crop in crops) for image in out)
    assert len({image.numpy().tobytes() for image in out}) > 30


def test_protocols_are_checked() -> None:
    with pytest.raises(InvalidInput, match="positive rate"):
        Protocol(rate=0)


def test_the_training_command(tmp_path, capsys) -> None:
    assert train.main(["cnn_w2", "--epochs", "1", "--cache", str(tmp_path)]) == 0
    assert "cnn_w2: test accuracy" in capsys.readouterr().out
    assert train.main(["mnist_mlp", "--data-root", str(tmp_path), "--cache", str(tmp_path)]) == 2
    assert "LeCun" in capsys.readouterr().err


def test_a_cnn_of_one_layer() -> None:
    assert cnn((1, 5, 5), (2,), (3,), stride=2, padding=1)(torch.zeros(1, 1, 5, 5)).shape == (1, 3)


README = Path(__file__).parents[2] / "README.md"


def test_the_demo_and_the_readme_that_goes_on_from_it(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo.main(["--time-limit", "0.5"]) == 0
    out = capsys.readouterr().out
    for name in lipcompare.METHODS:
        assert f" {name} " in out
    assert "lipverify" in out and "largest row: [" in out
    assert (tmp_path / "demo" / "comparison.png").stat().st_size > 10_000
    network = lipcompare.load(tmp_path / "demo" / "digits_mlp.npz")
    assert network.in_size == np.load(tmp_path / "demo" / "digit.npy").size == 64
    (code, *_) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(code, {})
    assert "at most" in capsys.readouterr().out


def test_the_readme_lists_every_method() -> None:
    for name, cls in lipcompare.METHODS.items():
        assert re.search(rf"^\| `{name}` \| {cls.proves} \|", README.read_text(), re.MULTILINE)
