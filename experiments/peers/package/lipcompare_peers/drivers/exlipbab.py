"""ExLipBaB."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
from exlipbab.exlipbab_main import exlipbab_main
from exlipbab.helper_classes.piece_wise_linear_function import PWL_Identity, PWL_Relu
from exlipbab.helper_classes.polyhedron import Polyhedron

from . import exchange


def prepare(question: exchange.Question, option: str) -> exchange.Solve:
    network: list[Any] = []
    for layer in question.dense:
        last = layer is question.dense[-1]
        network += [(layer.weight, layer.bias), (PWL_Identity if last else PWL_Relu)(len(layer.weight))]
    inputs = Polyhedron.from_intervals(np.stack(question.box, 1))

    def solve(seconds: float) -> float:
        _, upper, *_ = exlipbab_main(
            N=network, X=inputs, solver="glpk", pnorm=question.norm, verbose=False, timeout=seconds
        )
        return float(upper)

    return solve


if __name__ == "__main__":
    exchange.main(prepare, f"exlipbab {metadata.version('exlipbab')}")
