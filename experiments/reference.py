"""Every method on the reference networks, against the values that public programs and exact solvers reached there.

    python -m experiments.reference [--cases mlp3_w32] [--methods lbp,attack] [--data ../shared/reference]
    python -m experiments.reference --cases mlp3_w64@0.3,mlp_d8_w32@0.1 --methods "bab race" --device cuda --seconds 15

Runs on one thread, prints how every run ended, target, measured value and time per case and method, and exits with 1 on
a miss. Targets of time are those of a processor. The networks and their known values (``reference.json``) are not part
of the repository.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table

import lipcompare
import solvers
from experiments.device import add_device, described
from experiments.study import guarded
from lipcompare import Bound, Problem
from lipcompare.encoding.network import Encoding
from lipcompare.errors import InvalidInput, nearest
from lipcompare.methods import Attack, Bab, Ibp, Lbp, Lp, Method, Milp, Naive, RecurJac, Sdp
from lipcompare.preactivation import Tightening
from lipcompare.programs.prepared import encode_rows
from lipcompare.programs.tolerance import solver_error
from lipcompare.rounding import allowance

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "reference"


@dataclasses.dataclass(frozen=True)
class Case:
    """One network at one radius with what is known about it."""

    key: str
    problem: Problem
    known: dict[str, Any]

    @property
    def depth(self) -> int:
        """Number of linear layers."""
        return len(self.problem.network.activations) + 1

    def public(self, name: str) -> float:
        return float(self.known["public"][name]["value"])


@dataclasses.dataclass(frozen=True)
class Check:
    """One inequality a result must meet."""

    text: str
    measured: float
    holds: bool


def at_most(text: str, measured: float, target: float, slack: float) -> Check:
    return Check(f"<= {text} {target:.6g}", measured, measured <= target * (1 + slack))


def at_least(text: str, measured: float, target: float, slack: float = 0.0) -> Check:
    return Check(f">= {text} {target:.6g}", measured, measured >= target * (1 - slack))


def sound(case: Case, upper: float) -> Check:
    return at_least("lower", upper, case.known["lower"], 1e-9)


def check_attack(case: Case, result: Bound) -> Iterator[Check]:
    lower = float(result.overall_lower[0])
    share = 0.99 if case.depth <= 4 else 0.97
    yield at_least(f"{share} lower", lower, share * case.known["lower"])
    yield at_most("upper", lower, case.known["upper"], 1e-6)
    yield at_most("seconds", result.seconds, 2.0, 0.0)


def check_lbp(case: Case, result: Bound) -> Iterator[Check]:
    upper = float(result.overall_upper[0])
    yield at_most("paper_no_bab", upper, case.public("paper_no_bab"), 1e-3)
    yield at_most("linear_no_alpha", upper, case.known["linear_no_alpha"], 1e-4)
    yield sound(case, upper)


def check_public(name: str) -> Callable[[Case, Bound], Iterator[Check]]:
    def check(case: Case, result: Bound) -> Iterator[Check]:
        upper = float(result.overall_upper[0])
        yield at_most(name, upper, case.public(name), 1e-3)
        yield sound(case, upper)

    return check


def check_lp(case: Case, result: Bound) -> Iterator[Check]:
    upper = float(result.overall_upper[0])
    yield at_most("lbp", upper, float(lipcompare.bound(case.problem, "lbp").overall_upper[0]), 0.0)
    yield sound(case, upper)


def check_sdp(case: Case, result: Bound) -> Iterator[Check]:
    upper = float(result.overall_upper[0])
    yield at_most("quadratic_prototype", upper, case.known["quadratic_prototype"]["value"], 1e-3)
    linear = lipcompare.bound(case.problem, "lbp", tightening="crown")
    yield at_most("lbp", upper, float(linear.overall_upper[0]), 0.0)
    yield sound(case, upper)
    target = SDP_SECONDS.get(case.key)
    if target is not None:
        yield at_most("seconds", result.seconds, target, 0.0)


def check_cuts(case: Case, result: Bound) -> Iterator[Check]:
    upper = float(result.overall_upper[0])
    yield sound(case, upper)
    plain = float(lipcompare.bound(case.problem, PLAIN_SDP).overall_upper[0])
    yield at_most("sdp", upper, plain, 1e-9)
    exact = case.known.get("exact")
    if exact is not None and plain > exact * (1 + 1e-4):
        yield at_most("exact + half of the gap", upper, (exact + plain) / 2, 0.0)


PLAIN_SDP = Sdp(tightening=Tightening.CROWN)
CUT_SDP = dataclasses.replace(PLAIN_SDP, cuts=600)
SDP_SECONDS = {"mlp3_w32@0.3": 0.06, "mlp_d4_w32@0.1": 0.06, "mlp3_w128@0.3": 2.0, "mlp_d8_w32@0.3": 1.5}


# Seconds of LipMIP (Jordan and Dimakis 2020) with Gurobi in its fast setting, all rows.
LIPMIP_SECONDS = {"mlp3_w32@0.1": 9.5, "mlp_d3_w32@0.1": 14.6, "mlp3_w16@0.3": 46.5, "mlp3_w64@0.02": 15.1}


def check_milp(case: Case, result: Bound) -> Iterator[Check]:
    lower, upper = float(result.overall_lower[0]), float(result.overall_upper[0])
    yield sound(case, upper)
    yield at_most("upper", lower, case.known["upper"], 1e-6)
    if "exact" in case.known and case.key != "mlp_d4_w32@0.1":
        yield at_most("exact", upper, case.known["exact"], 1e-5)
        yield at_least("exact", lower, case.known["exact"], 1e-5)
    if case.key in LIPMIP_SECONDS:
        yield at_most("a third of LipMIP's seconds", result.seconds, LIPMIP_SECONDS[case.key] / 3, 0.0)
    if case.key == "mlp3_w32@0.3":
        yield at_most("seconds", result.seconds, 60.0, 0.0)


def check_bab(case: Case, result: Bound) -> Iterator[Check]:
    lower, upper = float(result.overall_lower[0]), float(result.overall_upper[0])
    yield sound(case, upper)
    yield at_most("upper", lower, case.known["upper"], 1e-6)
    if "exact" in case.known or case.key in ("mlp_d3_w32@0.3", "mlp3_w64@0.1"):
        yield at_most("1e-4 above lower", upper, lower, 1.001e-4)
    width = max(node.size for node in case.problem.network.nodes)
    if case.depth <= 5 and width <= 64:
        yield at_most("1.25 lower", upper, 1.25 * lower, 0.0)
    elif case.depth <= 6:
        yield at_most("1.5 lower", upper, 1.5 * lower, 0.0)


def check_paper_bab(case: Case, result: Bound) -> Iterator[Check]:
    upper = float(result.overall_upper[0])
    yield sound(case, upper)
    if "paper_bab_60s" in case.known["public"]:
        yield at_most("paper_bab_60s", upper, case.public("paper_bab_60s"), 1e-4)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method with its time limit and its checks."""

    method: Method
    time_limit: float
    checks: Callable[[Case, Bound], Iterator[Check]]
    gap: float = 1e-4

    @property
    def label(self) -> str:
        """The method's name, with the bound of a branch and bound, or that there are cuts."""
        if isinstance(self.method, Bab):
            return f"{self.method.name} {self.method.bound}"
        return f"{self.method.name} cuts" if self.method == CUT_SDP else self.method.name


ENTRIES = (
    Entry(Naive(), float("inf"), check_public("norm_product")),
    Entry(Ibp(), float("inf"), check_public("paper_ibp")),
    Entry(RecurJac(), float("inf"), check_public("paper_recurjac")),
    Entry(Lbp(), float("inf"), check_lbp),
    Entry(Lp(), 60.0, check_lp),
    Entry(PLAIN_SDP, float("inf"), check_sdp),
    Entry(CUT_SDP, 60.0, check_cuts),
    Entry(Milp(), 60.0, check_milp, gap=1e-5),
    Entry(Bab(), 60.0, check_bab),
    Entry(Bab(bound="lbp"), 60.0, check_paper_bab),
    Entry(Attack(), 1.4, check_attack),
)


def cases(data: Path, patterns: str, device: str = "cpu") -> Iterator[Case]:
    """The reference cases whose key contains one of ``patterns``, which commas separate.

    Raises:
        InvalidInput: there are none, or no ``reference.json`` is there.
    """
    if not (data / "reference.json").exists():
        raise InvalidInput(f"No reference.json in {data}: give the folder with --data.")
    known = json.loads((data / "reference.json").read_text())
    keys = [key for key in sorted(known) if any(pattern in key for pattern in patterns.split(","))]
    if not keys:
        raise InvalidInput(f"No case's name contains one of {patterns!r}.{nearest(patterns, known)}")
    for key in keys:
        name, eps = key.split("@")
        network = lipcompare.load(data / f"{name}.npz")
        yield Case(key, Problem.around(network, 0.5, float(eps), device=device), known[key])


LOOSE = (
    *itertools.product(("naive", "ibp", "recurjac", "lbp"), (torch.float64, torch.float32)),
    ("lp", torch.float64),
    ("sdp", torch.float64),
)
"""Methods and precisions whose bounds are computed with and without the allowances for rounding. Programs are solved in
float64 whatever the problem's precision is."""


def looseness(case: Case, method: str, dtype: torch.dtype) -> float:
    """What the allowances for rounding add to a bound, relative, the largest of its rows; NaN if the time ended it."""
    radius = float(case.key.split("@")[1])
    problem = Problem.around(case.problem.network, 0.5, radius, dtype=dtype, device=case.problem.device)
    result = lipcompare.bound(problem, method)
    with mock.patch("lipcompare.rounding.gamma", return_value=0.0):
        allowance.cache_clear()
        bare = lipcompare.bound(problem, method)
    allowance.cache_clear()
    if result.status.early or bare.status.early:
        return math.nan
    return float(((result.upper - bare.upper) / bare.upper).max())


@contextlib.contextmanager
def watched_programs() -> Iterator[list[tuple[float, float]]]:
    """What is added to the bound of every program that milp solves meanwhile: for the rounding of its coefficients, and
    for the tolerance that the solver's word is good to."""
    added: list[tuple[float, float]] = []

    def encoded(*arguments: Any, **options: Any) -> Encoding:
        encoding = encode_rows(*arguments, **options)
        added.append((encoding.error, solver_error(solvers.get(Milp().solver), encoding.program)))
        return encoding

    with mock.patch("lipcompare.methods.milp.encode_rows", encoded):
        yield added


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with reference.json and the networks")
    parser.add_argument("--cases", default="", help="only cases whose key contains one of these, comma-separated")
    parser.add_argument("--methods", default="", help='only these, comma-separated, such as sdp, "sdp cuts", bab')
    parser.add_argument("--seconds", type=float, help="time limit of every method, in place of its own")
    add_device(parser)
    arguments = parser.parse_args(given)
    wanted = set(filter(None, arguments.methods.split(",")))
    names = wanted - {entry.label for entry in ENTRIES}  # "bab" takes every kind of it, "sdp" is a label of its own
    entries = [e for e in ENTRIES if not wanted or e.label in wanted or e.method.name in names]
    if arguments.seconds is not None:
        entries = [dataclasses.replace(entry, time_limit=arguments.seconds) for entry in entries]
    device = arguments.device
    torch.set_num_threads(1)
    small = next(cases(arguments.data, "mlp3_w16@0.1", device)).problem
    lipcompare.bound(small, "lbp")  # first calls load libraries
    for entry in entries if device != "cpu" else ():
        lipcompare.bound(small, entry.method, time_limit=2.0)  # and kernels

    console = Console(width=None if sys.stdout.isatty() else 120)
    heads = ("case", "method", "value", "seconds", "targets", "result")
    table = Table(*heads, title=f"Reference networks: {described(device)}")
    misses = total = 0
    loose: dict[str, tuple[float, str]] = {}

    def note(what: str, added: float, key: str) -> None:
        loose[what] = max((added, key), loose.get(what, (0.0, key)))

    for case in cases(arguments.data, arguments.cases, device):
        for method, dtype in LOOSE:
            if any(entry.label == method for entry in entries):
                added = looseness(case, method, dtype)
                if math.isnan(added):
                    print(f"{case.key}: the time ended {method}, so what rounding adds is not known.")
                else:
                    note(f"Rounding adds at most {{:.1e}} to {method} in {str(dtype)[6:]}", added, case.key)
        for entry in entries:
            with watched_programs() as programs:
                result = lipcompare.bound(case.problem, entry.method, time_limit=entry.time_limit, gap=entry.gap)
            for error, tolerance in programs:
                best = float(result.overall_upper[0])
                note("Rounding adds at most {:.1e} to a program of milp", error / best, case.key)
                note("The solver's tolerance adds at most {:.1e} to a program of milp", tolerance / best, case.key)
            checks = list(entry.checks(case, result))
            failed = [check for check in checks if not check.holds]
            total += len(checks)
            misses += len(failed)
            value = float(result.overall_lower[0] if entry.method.proves == "lower" else result.overall_upper[0])
            ending = " ".join(filter(None, (result.status.value, result.detail)))
            print(f"{case.key}, {entry.label}: {value:.6f} after {result.seconds:.2f} s; {ending}", flush=True)
            verdict = "pass" if not failed else "MISS: " + "; ".join(f"{c.measured:.6g} not {c.text}" for c in failed)
            targets = "; ".join(check.text for check in checks)
            table.add_row(case.key, entry.label, f"{value:.5f}", f"{result.seconds:.3f}", targets, verdict)
    console.print(table)
    for what, (most, key) in loose.items():
        print(f"{what.format(most)}, relative ({key}).")
    print(f"{total - misses} of {total} checks hold, {misses} missed.")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(guarded(main))
