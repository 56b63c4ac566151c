"""LipBaB's script, whose functions work on module variables, with the problem in place of the one that it loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from . import exchange

LOADING, MAIN = "#loading the network parameters", "#main algorithm"
"""Comments in the script around its built-in problem."""


def prepare(question: exchange.Question, option: str) -> exchange.Solve:
    text = Path("LipBaB.py").read_text()
    sizes = [len(question.center), *(len(layer.weight) for layer in question.dense)]
    low, high = question.box
    work: dict[str, Any] = {
        "weights": [None, *(layer.weight.tolist() for layer in question.dense)],
        "biases": [None, *(layer.bias.tolist() for layer in question.dense)],
        "L": len(sizes) - 1,
        "X": [0] * sizes[0],
        "act_pat": [[[1, 1] for _ in range(size)] for size in sizes],
        "bnds": [[float(a), float(b)] for a, b in zip(low, high, strict=True)],
    }
    norm = "np.inf" if np.isinf(question.norm) else str(int(question.norm))
    algorithm = re.sub(r"^pnorm=\S+", f"pnorm={norm}", text[text.index(MAIN) :], flags=re.MULTILINE)
    program = compile(text[: text.index(LOADING)] + algorithm, "LipBaB.py", "exec")

    def solve(seconds: float) -> float:
        exec(program, work)  # noqa: S102 - the program is a script
        return float(work["tp"].Lub)

    return solve


if __name__ == "__main__":
    exchange.main(prepare, "LipBaB")
