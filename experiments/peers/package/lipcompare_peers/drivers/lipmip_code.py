"""LipMIP's code: one program per output."""

from __future__ import annotations

import contextlib
import os
import time

import gurobipy
import torch
from hyperbox import Hyperbox
from lipMIP import LipMIP
from relu_nets import ReLUNet

from . import exchange


def prepare(question: exchange.Question, option: str) -> exchange.Solve:
    network = ReLUNet.from_sequential(exchange.module(question, torch.float64))
    box = Hyperbox.from_midpoint_radii(torch.as_tensor(question.center), torch.as_tensor(question.radius))

    def solve(seconds: float) -> list[float]:
        end = time.monotonic() + seconds
        upper: list[float] = []
        for row in torch.eye(question.outputs, dtype=torch.float64):
            left = max((end - time.monotonic()) / (question.outputs - len(upper)), 0.1)
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                problem = LipMIP(network, box, row, primal_norm="linf", timeout=left, num_threads=1)
                upper.append(float(problem.compute_max_lipschitz().value))
        return upper

    return solve


if __name__ == "__main__":
    torch.set_num_threads(1)
    exchange.main(prepare, "LipMIP, Gurobi " + ".".join(map(str, gurobipy.gurobi.version())))
