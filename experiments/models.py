"""The architectures of the paper's study, by name, as plain torch modules.

``MODELS`` names those that the study trains; the functions build any member of the same families.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable

from torch import nn

from lipcompare.errors import InvalidInput, nearest


def mlp(*sizes: int) -> nn.Sequential:
    """A fully connected ReLU network, ``mlp(16, 32, 10)`` having one hidden layer; the input is flattened."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def cnn(
    image: tuple[int, int, int],
    channels: tuple[int, ...],
    hidden: tuple[int, ...],
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: int = 0,
) -> nn.Sequential:
    """Convolutions of equal shape, then dense layers of the sizes ``hidden``, ReLU between all.

    Args:
        image: channels, height and width of the input.
        channels: output channels of each convolution.
        hidden: sizes of the dense layers; the last one is the number of outputs.
    """
    layers: list[nn.Module] = []
    before, height, width = image
    for after in channels:
        layers += [nn.Conv2d(before, after, kernel, stride=stride, padding=padding), nn.ReLU()]
        height = (height + 2 * padding - kernel) // stride + 1
        width = (width + 2 * padding - kernel) // stride + 1
        before = after
    return nn.Sequential(*layers, *mlp(before * height * width, *hidden))


@dataclasses.dataclass(frozen=True)
class Model:
    """A named architecture and the data it is trained on.

    Attributes:
        data: a name that :func:`experiments.data.dataset` knows.
        input_shape: shape of one example.
        build: makes an untrained module.
    """

    name: str
    data: str
    input_shape: tuple[int, ...]
    build: Callable[[], nn.Sequential]


def _fixed() -> list[Model]:
    cifar, tiny = (3, 32, 32), (3, 64, 64)
    return [
        Model("digits_mlp", "digits", (64,), lambda: mlp(64, 32, 32, 10)),
        Model("mnist_mlp", "mnist", (1, 28, 28), lambda: mlp(784, 20, 20, 10)),
        Model("mnist_cnn", "mnist", (1, 28, 28), lambda: cnn((1, 28, 28), (8, 8), (100, 10), kernel=4)),
        Model("cifar_cnn4", "cifar10", cifar, lambda: cnn(cifar, (32, 32), (256, 10))),
        Model("cifar_cnn6", "cifar10", cifar, lambda: cnn(cifar, (32,) * 4, (256, 10))),
        Model("tiny_cnn4", "tiny_imagenet", tiny, lambda: cnn(tiny, (32, 32), (256, 200), stride=2, padding=1)),
        Model("tiny_cnn6", "tiny_imagenet", tiny, lambda: cnn(tiny, (32,) * 4, (256, 200), stride=2, padding=1)),
        Model("adult_mlp", "adult", (108,), lambda: mlp(108, 512, 512, 512, 2)),
    ]


def _by_width(width: int) -> Model:
    return Model(f"mlp3_w{width}", "clusters16", (16,), lambda: mlp(16, width, width, 10))


def _by_depth(depth: int) -> Model:
    return Model(f"mlp_d{depth}_w32", "clusters16", (16,), lambda: mlp(16, *(32,) * (depth - 1), 10))


def _cnn_by_width(width: int) -> Model:
    return Model(f"cnn_w{width}", "clusters64", (1, 8, 8), lambda: cnn((1, 8, 8), (width, width), (10,)))


_FAMILIES: dict[str, Callable[[int], Model]] = {
    r"mlp3_w(\d+)": _by_width,
    r"mlp_d(\d+)_w32": _by_depth,
    r"cnn_w(\d+)": _cnn_by_width,
}

MODELS: dict[str, Model] = {
    m.name: m
    for m in (
        *(_by_width(w) for w in (16, 32, 64, 128)),
        *(_by_depth(d) for d in range(2, 9)),
        *(_cnn_by_width(w) for w in (2, 4, 8, 16)),
        *_fixed(),
    )
}
"""The study's models. Other widths and depths of the synthetic families are known to :func:`model` too."""


def model(name: str) -> Model:
    """The model called ``name``: one of ``MODELS``, or any width or depth of a synthetic family.

    Raises:
        InvalidInput: an unknown name.
    """
    if name in MODELS:
        return MODELS[name]
    for pattern, family in _FAMILIES.items():
        match = re.fullmatch(pattern, name)
        if match and int(match[1]) >= (2 if "_d" in pattern else 1):
            return family(int(match[1]))
    raise InvalidInput(f"Unknown model {name!r}.{nearest(name, MODELS)}")
