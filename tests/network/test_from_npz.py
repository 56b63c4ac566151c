"""Weights and biases in an npz file: what they make, and a sentence for what makes nothing."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lipcompare.errors import InvalidInput
from lipcompare.network.load import load

SHARED = Path(__file__).parents[2] / ".." / "shared"


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
