"""A small network on scikit-learn's digits, and every method there is on it: ``python -m experiments.demo``.

Trains in seconds, prints the comparison table of all registered methods for one test image, and writes the network, the
image, the table, its plot and a certificate of the tightest result, which lipverify checks, to the folder demo.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from lipverify.command import main as verify
from rich.console import Console

import lipcompare
from experiments.data import dataset
from experiments.train import Protocol, trained
from lipcompare import METHODS, Bound, Problem
from lipcompare.cli.printing.bounds import exit_code, print_comparison
from lipcompare.display.intervals import comparison, save

EPS = 0.1
"""Radius of the box around the image; pixels lie in 0..1."""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; the exit code is that of the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, default=6.0, help="seconds per method (default: %(default)g)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)

    digits = dataset("digits")
    model = trained("digits_mlp", Protocol(epochs=60, batch=64), cache=chosen.out / "models")
    console.print(f"digits_mlp (64-32-32-10) classifies {model.accuracy:.1%} of scikit-learn's test digits.")
    image = digits.normalised(digits.test.x[:1])
    network = lipcompare.load(model.module, input_shape=(64,), name="digits_mlp")
    problem = Problem.around(network, image, EPS, clip=(0.0, 1.0))

    results: list[Bound] = []
    frame = lipcompare.compare(
        problem, list(METHODS), time_limit=chosen.time_limit, on_result=lambda _, result: results.append(result)
    )
    print_comparison(console, problem, results)

    np.savez(chosen.out / "digits_mlp.npz", **weights(model.module))  # type: ignore[arg-type]  # the stub takes names for options
    np.save(chosen.out / "digit.npy", image)
    frame.to_csv(chosen.out / "comparison.csv", index=False)
    save(comparison(frame, title=f"digits_mlp, radius {EPS}"), chosen.out / "comparison.png")
    tightest = min(results, key=lambda result: float(result.overall_upper[0]))
    tightest.certificate(chosen.out / "certificate.npz", time_limit=chosen.time_limit)
    written = "comparison.png, comparison.csv, digits_mlp.npz, digit.npy, certificate.npz"
    console.print(f"Written to {chosen.out}: {written}")
    files = [str(chosen.out / name) for name in ("certificate.npz", "digits_mlp.npz")]
    console.print(f"Checked by a program that shares nothing with this one: lipverify {' '.join(files)}")
    refused = verify(files)
    console.print(
        f"Next: lipcompare bound {chosen.out}/digits_mlp.npz --input {chosen.out}/digit.npy --eps 0.1 --clip 0,1"
    )
    return exit_code(results) or refused


def weights(module: torch.nn.Sequential) -> dict[str, np.ndarray]:
    """Arrays ``W0, b0, W1, b1, ...`` of a fully connected network."""
    layers = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
    return {
        f"{letter}{k}": tensor.detach().double().numpy()
        for k, layer in enumerate(layers)
        for letter, tensor in (("W", layer.weight), ("b", layer.bias))
    }


if __name__ == "__main__":
    sys.exit(main())
