"""The files that the tests of the command line ask about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A network 4-6-3, inputs of all kinds, and files that are broken in all ways."""
    folder = tmp_path_factory.mktemp("cli")
    random = np.random.default_rng(0)
    weights = {
        "W0": random.normal(size=(6, 4)),
        "b0": random.normal(size=6),
        "W1": random.normal(size=(3, 6)),
        "b1": random.normal(size=3),
    }
    np.savez(folder / "net.npz", **weights)
    np.savez(folder / "nan.npz", **{**weights, "W1": weights["W1"] * np.nan})
    np.save(folder / "batch.npy", random.random((5, 4)))
    np.save(folder / "bytes.npy", random.integers(0, 256, (2, 2, 2), dtype=np.uint8))
    np.save(folder / "labels.npy", np.array([0, 1, 2, 1, 0]))
    np.save(folder / "rows.npy", random.normal(size=(2, 3)))
    np.save(folder / "with_nan.npy", np.array([0.1, np.nan, 0, 0]))
    np.save(folder / "with_inf.npy", np.array([0.1, np.inf, 0, 0]))
    np.save(folder / "seven.npy", np.zeros(7))
    np.save(folder / "empty.npy", np.zeros((0, 4)))
    np.save(folder / "texts.npy", np.array(["a", "b"]))
    np.save(folder / "objects.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    (folder / "broken.npy").write_bytes(b"\x93NUMPY\x01\x00 and then nothing")
    (folder / "broken.npz").write_bytes(b"PK nothing")
    (folder / "broken.onnx").write_bytes(b"nothing")
    torch.save({}, folder / "net.pt")
    box = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 1))\n" for i in range(4))
    (folder / "box.vnnlib").write_text(box + "(declare-const Y_0 Real)(assert (<= Y_0 0))")
    (folder / "open.vnnlib").write_text("(declare-const X_0 Real)(assert (>= X_0 0))")
    (folder / "one.vnnlib").write_text("(declare-const X_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))")
    return folder
