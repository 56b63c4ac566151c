"""Trained image classifiers: mean constant and mean time per method, over boxes around test images.

python -m experiments.images
python -m experiments.images --data-root ../shared/data --examples 2 --time-limit 60
python -m experiments.images mnist_mlp mnist_cnn --eps 2/255,8/255 --data-root ../shared/data

Takes every network whose data are under the data root (MNIST, CIFAR-10, Tiny ImageNet), and scikit-learn's digits.
eps is in units of pixels in 0..1 and divided by the standard deviation where inputs are normalised, as in the paper;
--clip cuts the boxes with the range of pixels. Then: python -m figures.images
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console

from experiments.data import Dataset
from experiments.study import EVERYTHING, Choices, main
from lipcompare import Box, Network, Problem
from lipcompare.errors import InvalidInput
from lipcompare.study.run import Study, Task

NAME = "images"
MODELS = ("digits_mlp", "mnist_mlp", "mnist_cnn", "cifar_cnn4", "cifar_cnn6", "tiny_cnn4", "tiny_cnn6")
RADII = {"1/255": 1 / 255, "2/255": 2 / 255, "8/255": 8 / 255}
DIGITS_RADII = {"0.02": 0.02, "0.1": 0.1}
"""The digits have 64 pixels of 17 levels: 1/255 of the range is nothing to them."""

REDUCED_SECONDS = 10.0


def radius(text: str) -> float:
    """A radius as the command line has it: a number, or a quotient of two."""
    over, slash, under = text.partition("/")
    try:
        value = float(over) / (float(under) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise InvalidInput(f"--eps {text!r} is no radius: write numbers such as 8/255 or 0.1.") from None
    if not 0 < value < float("inf"):
        raise InvalidInput(f"--eps {text!r} is no radius: it must be positive and finite.")
    return value


def studies(chosen: Choices, console: Console, names: Sequence[str] = MODELS) -> Sequence[Study]:
    """Three images per network at two radii, or twenty at three."""
    tasks = []
    wanted = {text: radius(text) for text in chosen.radii}
    missing: dict[str, list[str]] = {}
    for name in names:
        try:
            network, data, accuracy = chosen.network(name, console)
        except InvalidInput as error:
            missing.setdefault(str(error), []).append(name)
            continue
        count = min(chosen.count(3, 20), len(data.test.y))
        console.print(f"{name}: {network.neurons} neurons, test accuracy {accuracy:.1%}, {count} test images")
        radii = DIGITS_RADII if data.name == "digits" else RADII
        if wanted:
            radii = wanted
        elif not chosen.full:
            radii = {text: radii[text] for text in list(radii)[-2:]}
        tasks += [
            Task(
                problem, {"model": name, "radius": text, "example": example}, {"data": data.name, "accuracy": accuracy}
            )
            for text, eps in radii.items()
            for example, problem in enumerate(boxes(network, data, eps, count, clip=chosen.clip))
        ]
    for sentence, left_out in missing.items():
        console.print(f"{sentence} Left out: {', '.join(left_out)}.", soft_wrap=True)
    limits = chosen.limits(REDUCED_SECONDS)
    return [Study(NAME, tasks, chosen.settings(EVERYTHING), limits, chosen.device)]


def boxes(network: Network, data: Dataset, eps: float, count: int, *, clip: bool = False) -> list[Problem]:
    """Problems around the first test images, eps in units of pixels."""
    raw = data.test.x[:count]
    pixels = raw / 255.0 if raw.dtype == np.uint8 else raw
    shape = (len(data.mean),) + (1,) * (raw.ndim - 2) if len(data.mean) > 1 else ()
    mean, std = np.reshape(data.mean, shape), np.reshape(data.std, shape)
    ends = [pixels - eps, pixels + eps]
    if clip:
        ends = [np.clip(end, 0.0, 1.0) for end in ends]
    lower, upper = (torch.as_tensor((end - mean) / std, dtype=torch.float64).flatten(1) for end in ends)
    whole = Problem(network, Box(lower, upper))
    return [whole.example(b) for b in range(count)]


if __name__ == "__main__":
    sys.exit(main(studies, __doc__, names=MODELS))
