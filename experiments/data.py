"""Data sets, read from the formats in which their authors publish them.

    python -m experiments.data mnist --count 10 --out images.npy --labels labels.npy

``digits`` (scikit-learn) and the paper's synthetic ``clusters16`` and ``clusters64`` need no files. The others are read
from a data root: the folder given by ``--data-root`` or by the environment variable ``LIPCOMPARE_DATA``, ``data`` by
default. Nothing is ever downloaded; a missing file is named together with where it comes from and where it belongs.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments import readers
from experiments.readers import Split
from lipcompare.errors import InvalidInput, LipcompareError, nearest


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A classification task.

    Attributes:
        train, test: inputs before normalisation (images as bytes), and labels.
        classes: number of classes.
        mean, std: per channel, or one number; the models see ``(x - mean) / std``, images in 0..1.
        augment: random flips and crops with padding 4 in training.
        features: names of the inputs, where they have names.
    """

    name: str
    train: Split
    test: Split
    classes: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    augment: bool = False
    features: tuple[str, ...] = ()

    def normalised(self, x: np.ndarray) -> np.ndarray:
        """Inputs as the models see them, in float32."""
        unit = x / np.float32(255) if x.dtype == np.uint8 else x
        shape = (len(self.mean),) + (1,) * (x.ndim - 2) if len(self.mean) > 1 else ()
        result: np.ndarray = (unit - np.reshape(self.mean, shape)) / np.reshape(self.std, shape)
        return result.astype(np.float32)


def data_root(given: str | os.PathLike[str] | None = None) -> Path:
    """The folder with the data sets: ``given``, else ``$LIPCOMPARE_DATA``, else ``data``."""
    return Path(given or os.environ.get("LIPCOMPARE_DATA") or "data")


def dataset(name: str, root: str | os.PathLike[str] | None = None) -> Dataset:
    """The data set called ``name``, one of ``DATASETS``.

    Raises:
        InvalidInput: an unknown name, or a missing or broken file.
    """
    if name not in DATASETS:
        raise InvalidInput(f"Unknown data set {name!r}.{nearest(name, DATASETS)}")
    return DATASETS[name](data_root(root))


def digits(root: Path | None = None) -> Dataset:
    """scikit-learn's 8x8 digits, 1,797 of them, 70 % for training."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order] / 16.0, y[order].astype(np.int64)
    cut = int(0.7 * len(x))
    return Dataset("digits", Split(x[:cut], y[:cut]), Split(x[cut:], y[cut:]), 10)


def clusters(dimension: int, *, points: int = 10_000, classes: int = 10, seed: int = 0) -> Dataset:
    """The paper's synthetic task: points uniform in the unit cube, each of the class of its nearest leader.

    There are five random leaders per dimension, and equally many (or one more) per class.
    """
    random = np.random.default_rng(seed)
    leaders = random.random((5 * dimension, dimension))
    classes_of = random.permutation(np.arange(len(leaders)) % classes)
    x = random.random((points, dimension))
    distance = (leaders**2).sum(1) - 2 * x @ leaders.T
    y = classes_of[distance.argmin(1)]
    if dimension == 64:
        x = x.reshape(-1, 1, 8, 8)
    cut = int(0.7 * points)
    return Dataset(f"clusters{dimension}", Split(x[:cut], y[:cut]), Split(x[cut:], y[cut:]), classes)


def mnist(root: Path) -> Dataset:
    """MNIST from the four IDX files, compressed or not."""
    train, test = readers.mnist(root)
    return Dataset("mnist", train, test, 10)


def cifar10(root: Path) -> Dataset:
    """CIFAR-10 from the Python batches, with the paper's normalisation and augmentation."""
    train, test = readers.cifar10(root)
    return Dataset("cifar10", train, test, 10, (0.4914, 0.4822, 0.4465), (0.2009, 0.2009, 0.2009), augment=True)


def tiny_imagenet(root: Path, folder: str = "tiny-imagenet-200") -> Dataset:
    """Tiny ImageNet from its folder of JPEG files; the validation images are the test set."""
    train, test, classes = readers.tiny_imagenet(root, folder)
    return Dataset("tiny_imagenet", train, test, classes, (0.4802, 0.4481, 0.3975), (0.22, 0.22, 0.22), augment=True)


def adult(root: Path) -> Dataset:
    """Adult (UCI census income): six continuous features scaled to 0..1 by the training range, then one-hot ones."""
    train, test, features = readers.adult(root)
    return Dataset("adult", train, test, 2, features=features)


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "digits": digits,
    "clusters16": lambda root: clusters(16),
    "clusters64": lambda root: clusters(64),
    "mnist": mnist,
    "cifar10": cifar10,
    "tiny_imagenet": tiny_imagenet,
    "tiny_imagenet_10": lambda root: tiny_imagenet(root, "tiny-imagenet-10classes"),
    "adult": adult,
}


def main(arguments: list[str] | None = None) -> int:
    """Write test examples, normalised as the models see them, as a file for ``lipcompare bound --input``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("--data-root", help="folder with the data sets (default: $LIPCOMPARE_DATA, else data)")
    parser.add_argument("--count", type=int, default=10, help="how many of the first test examples (default: 10)")
    parser.add_argument("--out", type=Path, required=True, help="file for the inputs (.npy)")
    parser.add_argument("--labels", type=Path, help="file for the labels (.npy)")
    chosen = parser.parse_args(arguments)
    try:
        data = dataset(chosen.name, chosen.data_root)
    except LipcompareError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    x = data.normalised(data.test.x[: chosen.count])
    np.save(chosen.out, x)
    if chosen.labels is not None:
        np.save(chosen.labels, data.test.y[: chosen.count])
    print(f"{chosen.out}: {len(x)} test examples of {data.name}, shape {x.shape[1:]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
