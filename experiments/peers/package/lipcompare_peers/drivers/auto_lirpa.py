"""auto_LiRPA: the norm of the Clarke Jacobian in its own computation graph, one row after another."""

from __future__ import annotations

import auto_LiRPA
import numpy as np
import torch
from auto_LiRPA import BoundedModule, BoundedTensor
from auto_LiRPA.jacobian import GradNorm, JacobianOP
from auto_LiRPA.perturbations import PerturbationLpNorm
from auto_LiRPA.utils import Flatten
from torch import Tensor, nn

from . import exchange


class Row(nn.Module):
    """The l_1 norm of the gradient of the output that a mask selects."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.norm = network, GradNorm(norm=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        bound: Tensor = self.norm(JacobianOP.apply(self.network(x).matmul(mask), x))
        return bound


def prepare(question: exchange.Question, option: str) -> exchange.Solve:
    network = exchange.module(question, torch.float64, Flatten)
    center = torch.as_tensor(question.center).reshape(1, *question.shape)
    radius = torch.as_tensor(question.radius).reshape(1, *question.shape)
    mask = torch.zeros(question.outputs, 1)
    mask[0] = 1
    strided = any(layer.kind == "conv" and layer.options["stride"] != [1, 1] for layer in question.layers)
    bound_opts = {"conv_mode": "matrix" if strided else "patches"}
    model = BoundedModule(Row(network), (BoundedTensor(center), mask), bound_opts=bound_opts)
    box = BoundedTensor(center, PerturbationLpNorm(norm=np.inf, x_L=center - radius, x_U=center + radius))

    def solve(seconds: float) -> list[float]:
        upper = []
        for k in range(question.outputs):
            mask.zero_()
            mask[k] = 1
            bounds = model.compute_jacobian_bounds((box, mask), optimize=option == "optimized", bound_lower=False)
            upper.append(float(bounds[1]))
        return upper

    return solve


if __name__ == "__main__":
    torch.set_num_threads(1)
    # It stores what it is given in torch's default precision. In another one it works on a copy of the mask, which
    # keeps the first row for ever.
    torch.set_default_dtype(torch.float64)
    exchange.main(prepare, auto_LiRPA.__version__)
