"""This package as the other programs are run: a process of its own, the same file, the same clock.

The option is a method with its options, as in ``lbp tightening=crown``; ``operator-norm RELAXATION``; or
``certify METHOD``.
"""

from __future__ import annotations

import numpy as np
import torch
from lipcompare_peers.drivers import exchange

import lipcompare
from lipcompare import Norm, NormBall, Problem, methods
from lipcompare.attack.search import Effort
from lipcompare.questions import certified_radius, operator_norm_bounds

NONE = Effort(samples=1, starts=1, ascent_steps=0, rounds=0, regions=0)
"""Of the search for a lower bound, which the other programs do not give."""


def prepare(question: exchange.Question, option: str) -> exchange.Solve:
    network = lipcompare.load(exchange.module(question, torch.float64), input_shape=question.shape)
    name, *given = option.split()
    center, radius = np.asarray(question.center), float(question.radius[0])

    def solve(seconds: float) -> list[float] | float:
        if name == "certify":
            found = certified_radius(network, center, method=given[0], largest=radius, time_limit=seconds)
            return float(found.radius[0])
        if name == "operator-norm":
            points = torch.as_tensor(center)[None]
            ball = NormBall.around(points, torch.tensor(radius, dtype=torch.float64), Norm.TWO)
            bounds = operator_norm_bounds(network, ball, Norm.TWO, given[0], effort=NONE, time_limit=seconds)
            return float(bounds.upper[0])
        method = methods.get(name, **dict(text.split("=", 1) for text in given))
        problem = Problem.around(network, center, question.radius, norm=question.norm)
        return [float(value) for value in lipcompare.bound(problem, method, time_limit=seconds).upper[0]]

    return solve


if __name__ == "__main__":
    torch.set_num_threads(1)
    exchange.main(prepare, f"lipcompare {lipcompare.__version__}")
