"""auto_LiRPA's CROWN on margins, and the largest radius at which all of them are proved positive, by bisection."""

from __future__ import annotations

import dataclasses

import auto_LiRPA
import numpy as np
import torch
from auto_LiRPA import BoundedModule, BoundedTensor
from auto_LiRPA.perturbations import PerturbationLpNorm
from auto_LiRPA.utils import Flatten

from . import exchange

STEPS = 12
"""Halvings of the question's radius, which is the largest that is tried."""


def margins(question: exchange.Question) -> exchange.Question:
    """The outputs less one another: that of the largest at the centre and each other one."""
    network = exchange.module(question, torch.float64)
    label = int(network(torch.as_tensor(question.center).reshape(1, *question.shape)).argmax())
    others = [k for k in range(question.outputs) if k != label]
    *before, last = question.layers
    weight, bias = last.weight[label] - last.weight[others], last.bias[label] - last.bias[others]
    return dataclasses.replace(question, layers=(*before, dataclasses.replace(last, weight=weight, bias=bias)))


def prepare(question: exchange.Question, option: str) -> exchange.Solve:
    """For the radius; the option is auto_LiRPA's method, ``CROWN`` or ``CROWN-Optimized``."""
    center = torch.as_tensor(question.center).reshape(1, *question.shape)
    model = BoundedModule(exchange.module(margins(question), torch.float64, Flatten), center)

    def solve(seconds: float) -> float:
        low, high = 0.0, float(question.radius[0])
        for _ in range(STEPS):
            radius = (low + high) / 2
            box = BoundedTensor(center, PerturbationLpNorm(norm=np.inf, eps=radius))
            bound = model.compute_bounds(x=(box,), method=option or "CROWN", bound_upper=False)[0]
            low, high = (radius, high) if bool((bound > 0).all()) else (low, radius)
        return low

    return solve


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    exchange.main(prepare, auto_LiRPA.__version__)
