"""The quadratic-gate bound on images: how tight, how fast, and where there is no gap to close.

    python -m experiments.semidefinite images [--data-root ../shared/data] [--count 100]
    python -m experiments.semidefinite networks [--data-root ../shared/data] [--count 10]

``images`` trains the paper's MNIST 784-20-20-10 (cached) and bounds test images in one batch, at eps 0.1 and 8/255.
``networks`` takes two trained networks of others from the data root, image by image. Both print lbp, sdp, and the
attack's lower bound, which shows what there is to gain. Without the data, the digits of scikit-learn take their place.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import lipcompare
from experiments.data import Dataset, data_root, dataset
from experiments.train import CACHE, trained
from lipcompare import Network, Problem
from lipcompare.errors import InvalidInput

EPS = 8 / 255
OTHERS = ("vnncomp/mnist_fc/mnist-net_256x2.onnx", "converted/auto_LiRPA_mnist_cnn_small.onnx")
COLUMNS = ("network", "eps", "images", "lbp", "sdp", "attack", "median lbp/sdp", "median sdp/attack",
           "seconds lbp", "seconds sdp", "rows that keep lbp")  # fmt: skip


def centers(data: Dataset, count: int, network: Network) -> torch.Tensor:
    """The first test examples, flat, as the network sees them."""
    x = torch.from_numpy(data.normalised(data.test.x[:count])).double()
    return x.reshape(len(x), network.in_size)


def line(name: str, eps: float, parts: list[Problem], attack_seconds: float) -> list[str]:
    """One row of the table: all methods on batches of one radius; times are per image."""
    linear = [lipcompare.bound(p, "lbp") for p in parts]
    sharp = [lipcompare.bound(p, "sdp") for p in parts]
    attack = [lipcompare.bound(p, "attack", time_limit=attack_seconds * p.batch) for p in parts]
    images = sum(p.batch for p in parts)
    lbp, sdp = (np.concatenate([r.overall_upper for r in results]) for results in (linear, sharp))
    low = np.concatenate([r.overall_lower for r in attack])
    if (sdp > lbp * (1 + 1e-12)).any() or (sdp < low * (1 - 1e-9)).any():
        raise AssertionError(f"{name} at {eps:.4g}: the bounds contradict each other")
    kept = sum(int((s.upper >= b.upper).all(1).sum()) for s, b in zip(sharp, linear, strict=True))
    seconds = [sum(r.seconds for r in results) / images for results in (linear, sharp)]
    return [name, f"{eps:.4g}", str(images), f"{lbp.mean():.4f}", f"{sdp.mean():.4f}", f"{low.mean():.4f}",
            f"{np.median(lbp / sdp):.3f}", f"{np.median(sdp / low):.3f}",
            f"{seconds[0]:.3f}", f"{seconds[1]:.3f}", f"{kept} of {images} images"]  # fmt: skip


def images(root: Path, count: int, attack_seconds: float, cache: Path) -> Iterator[list[str]]:
    """The paper's network on a batch of test images."""
    try:
        name, data = "mnist_mlp", dataset("mnist", root)
    except InvalidInput as missing:
        name, data = "digits_mlp", dataset("digits", root)
        print(f"{missing} Taking the digits instead.", file=sys.stderr)
    model = trained(name, data_root=root, cache=cache)
    network = lipcompare.load(model.module, input_shape=model.model.input_shape)
    x = centers(data, count, network)
    for eps in (0.1, EPS):
        yield line(name, eps, [Problem.around(network, x, eps)], attack_seconds)


def networks(root: Path, count: int, attack_seconds: float, cache: Path) -> Iterator[list[str]]:
    """Networks trained by others, one image at a time."""
    folder = root / "networks"
    found = [folder / name for name in OTHERS if (folder / name).is_file()]
    if not found:
        print(f"None of {', '.join(OTHERS)} in {folder}: taking the digits instead.", file=sys.stderr)
        yield from images(root, count, attack_seconds, cache)
        return
    data = dataset("mnist", root)
    for path in found:
        network = lipcompare.load(path)
        x = centers(data, count, network)
        parts = [Problem.around(network, x[i : i + 1], EPS) for i in range(len(x))]
        yield line(path.stem, EPS, parts, attack_seconds)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("images", "networks"))
    parser.add_argument("--data-root", help="folder with the data sets (default: $LIPCOMPARE_DATA, else data)")
    parser.add_argument("--count", type=int, help="test images (default: 100 for images, 10 for networks)")
    parser.add_argument("--attack-seconds", type=float, default=2.0, help="for the attack, per image")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for trained models (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    study, count = (images, 100) if chosen.study == "images" else (networks, 10)
    table = Table(*COLUMNS, title="Means over images, seconds per image, one CPU thread")
    for cells in study(data_root(chosen.data_root), chosen.count or count, chosen.attack_seconds, chosen.cache):
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
