"""The paper's code as it was first released, with the auto_LiRPA that it names."""

from __future__ import annotations

import argparse
import contextlib
import os
import time

import auto_LiRPA
import numpy as np
import torch
from auto_LiRPA import BoundedModule, BoundedTensor
from auto_LiRPA.perturbations import PerturbationLpNorm
from auto_LiRPA.utils import Flatten, get_spec_matrix
from bab import bab_gradnorm
from gradient import convert_gradient_model, custom_ops_grad
from parser import add_arguments_data, add_arguments_lipschitz

from . import exchange


def defaults() -> argparse.Namespace:
    """The arguments of its command line as they are by default."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--debug", action="store_true")
    add_arguments_data(parser)
    add_arguments_lipschitz(parser)
    return parser.parse_args(["--bab"])


def augmented(question: exchange.Question, args: argparse.Namespace) -> tuple[BoundedModule, BoundedTensor]:
    """Its graph of the network with the gradient's norm, and the box."""
    shape, network = question.shape, exchange.module(question, torch.float64, Flatten)
    if len(shape) == 1:  # its branching takes images
        shape, network = (1, 1, *shape), torch.nn.Sequential(Flatten(), *network)
    center = torch.as_tensor(question.center).reshape(1, *shape)
    radius = torch.as_tensor(question.radius).reshape(1, *shape)
    strides = [layer.options["stride"] for layer in question.layers if layer.kind == "conv"]
    bound_opts = {
        "optimize_bound_args": {
            "ob_iteration": args.ob_iteration, "ob_lr_decay": args.ob_lr_decay, "ob_lr": args.ob_lr,
            "ob_no_float64_last_iter": True,
        },
        "sparse_intermediate_bounds": True, "sparse_conv_intermediate_bounds": True,
        "sparse_intermediate_bounds_with_ibp": True, "sparse_features_alpha": False, "sparse_spec_alpha": False,
        "conv_mode": "matrix" if any(stride[0] != 1 for stride in strides) else "patches", "lip_method": args.method,
    }  # fmt: skip
    model = BoundedModule(network, center, bound_opts=bound_opts, device="cpu", custom_ops=custom_ops_grad)
    convert_gradient_model(model, center, norm=np.inf)
    model.forward_final_name = model.final_name
    model.final_name = "/grad_norm"
    model.output_name = ["/grad_norm"]
    perturbation = PerturbationLpNorm(norm=np.inf, x_L=center - radius, x_U=center + radius)
    return model, BoundedTensor(center, perturbation)


def prepare(question: exchange.Question, option: str) -> exchange.Solve:
    args = defaults()
    args.bab = option == "branching"
    model, box = augmented(question, args)
    label = exchange.module(question, torch.float64)(box.reshape(1, *question.shape)).argmax(1)
    forward = get_spec_matrix(box, label, question.outputs)
    one = torch.ones(1, 1, 1)

    def bounded(k: int, first: bool, last: bool, limit: float) -> float:
        row = torch.zeros(1, 1, question.outputs)
        row[..., k] = 1
        model(box, row, final_node_name=model.forward_final_name)
        model(box, row)
        found = bab_gradnorm(
            model, box, row, c=-one, c_forward=forward, opt_forward=first or last, args=args, timeout=limit, bab=last
        )
        return -float(found)

    def solve(seconds: float) -> list[float]:
        """Every output once with one optimisation of the forward graph, then again, the worst first (``main.py``)."""
        begin = time.monotonic()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            upper = [bounded(k, k == 0, False, seconds) for k in range(question.outputs)]
            share = (seconds - (time.monotonic() - begin)) / question.outputs
            for k in sorted(range(question.outputs), key=lambda k: -upper[k]):
                left = seconds - (time.monotonic() - begin)
                if left <= 0:
                    break
                upper[k] = min(upper[k], bounded(k, False, True, min(share, left)))
        return upper

    return solve


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    exchange.main(prepare, f"auto_LiRPA {auto_LiRPA.__version__}")
