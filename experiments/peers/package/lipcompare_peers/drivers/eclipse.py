"""ECLipsE-Gen-Local of eclipse-nn."""

from __future__ import annotations

from importlib import metadata

import torch
from eclipse_nn.LipConstEstimator import LipConstEstimator

from . import exchange


def prepare(question: exchange.Question, option: str) -> exchange.Solve:
    weights = [torch.as_tensor(layer.weight) for layer in question.dense]
    biases = [torch.as_tensor(layer.bias).reshape(-1, 1) for layer in question.dense]
    center = torch.as_tensor(question.center).reshape(-1, 1)
    estimator = LipConstEstimator(weights=weights, biases=biases)

    def solve(seconds: float) -> float:
        radius = float(question.radius[0])
        bound, _, failed = estimator.estimate_gen_local(center, radius, actv="relu", algo=option or "Fast")
        if failed:
            raise RuntimeError(f"it ended with the code {failed}")
        return float(bound)

    return solve


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    exchange.main(prepare, f"eclipse-nn {metadata.version('eclipse-nn')}")
