"""What all drivers share: a problem in a file, a network made of its layers, an answer with its cost on one line.

A driver is started as ``python -m drivers.NAME PROBLEM.npz SECONDS [OPTION]``. It solves a tiny problem first, so that
what a program loads on its first call is not counted, then the one that it was given. Making its own form of the
network and answering are timed apart: the first is done once for a network.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

_NOTHING = np.empty(0)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the network.

    Attributes:
        kind: ``dense``, ``conv``, ``relu`` or ``flatten``.
        weight, bias: of ``dense`` (outputs, inputs) and ``conv`` (as ``torch.nn.Conv2d`` has it); else empty.
        options: stride and the like of ``conv``.
    """

    kind: str
    weight: np.ndarray
    bias: np.ndarray
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Question:
    """The largest norm of a gradient of an output over a box, or a ball.

    Attributes:
        layers: of the network, whose outputs are the functionals.
        shape: of one input.
        center, radius: (inputs,) each; of a ball all radii are the same.
        norm: of the input, which the gradient's is dual to.
    """

    layers: tuple[Layer, ...]
    shape: tuple[int, ...]
    center: np.ndarray
    radius: np.ndarray
    norm: float

    @property
    def dense(self) -> list[Layer]:
        """The layers with weights, of a network without convolutions."""
        return [layer for layer in self.layers if layer.kind == "dense"]

    @property
    def outputs(self) -> int:
        return len(self.dense[-1].weight)

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        return self.center - self.radius, self.center + self.radius


def read(path: str) -> Question:
    """A question from its file."""
    with np.load(path, allow_pickle=False) as data:
        about = json.loads(str(data["about"]))
        layers = tuple(
            Layer(kind, data.get(f"weight{k}", _NOTHING), data.get(f"bias{k}", _NOTHING), options)
            for k, (kind, options) in enumerate(about["layers"])
        )
        return Question(layers, tuple(about["shape"]), data["center"], data["radius"], float(about["norm"]))


def small(norm: float) -> Question:
    """A question that every program answers at once."""
    random = np.random.default_rng(0)
    sizes = (3, 8, 8, 2)
    layers: list[Layer] = []
    for inputs, outputs in itertools.pairwise(sizes):
        weight, bias = random.normal(size=(outputs, inputs)), random.normal(size=outputs)
        layers += [Layer("dense", weight, bias, {}), Layer("relu", _NOTHING, _NOTHING, {})]
    return Question(tuple(layers[:-1]), (3,), np.array([1.0, -1.0, 2.0]), np.full(3, 0.5), norm)


def module(question: Question, dtype: Any, flatten: Callable[[], Any] | None = None) -> Any:
    """The network as a ``torch.nn.Sequential``; ``flatten`` makes the module between images and vectors."""
    import torch
    from torch import nn

    made: list[nn.Module] = []
    for layer in question.layers:
        if layer.kind == "relu":
            made.append(nn.ReLU())
            continue
        if layer.kind == "flatten":
            made.append((flatten or nn.Flatten)())
            continue
        outputs, inputs = layer.weight.shape[:2]
        new: nn.Linear | nn.Conv2d
        if layer.kind == "dense":
            new = nn.Linear(inputs, outputs)
        else:
            kernel = layer.weight.shape[2], layer.weight.shape[3]
            new = nn.Conv2d(inputs, outputs, kernel, **layer.options)
        # In double precision before it is filled: what torch makes by default would round.
        new.double()
        with torch.no_grad():
            for parameter, value in zip(new.parameters(), (layer.weight, layer.bias), strict=True):
                parameter.copy_(torch.as_tensor(value))
        made.append(new)
    return nn.Sequential(*made).to(dtype).eval()


Answer = list[float] | float
"""An upper bound for every output, or one for all of them; of :mod:`.crown` a radius."""


Solve = Callable[[float], Answer]
"""Answers within some seconds."""


def main(prepare: Callable[[Question, str], Solve], version: str) -> None:
    """Answer the question of the command line; ``prepare`` takes it with the option."""
    path, seconds, *option = sys.argv[1:]
    question, choice = read(path), (option or [""])[0]
    prepare(small(question.norm), choice)(10.0)
    start = time.process_time()
    solve = prepare(question, choice)
    prepared = time.process_time()
    values = solve(float(seconds))
    end = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    said = {"values": values, "seconds": end - prepared, "preparing": prepared - start, "memory": peak}
    print("\n" + json.dumps({**said, "version": version}))
