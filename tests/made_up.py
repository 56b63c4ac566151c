"""A results store with made-up rows of every study, for the tests of tables, figures and the report."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pandas as pd

from lipcompare.budget import TracePoint
from lipcompare.store.database import Label, Member, Origin, Record, Store

SERIES = ("NaiveUB", "IBP", "RecurJac", "LipMIP", "paper", "sdp", "bab", "attack")
_FACTORS = {"NaiveUB": 9.0, "IBP": 3.0, "RecurJac": 2.0, "paper": 1.5, "sdp": 1.1, "bab": 1.0, "attack": 1.0}


def record(key: str = "a", **changes: object) -> Record:
    made = Record(
        key=key, network="net", network_hash="n", problem_hash="p", inputs=3, outputs=2, neurons=10, radius=0.1,
        norm="inf", method="lbp", options={"tightening": "crown"}, lower=0.0, upper=math.inf, rows_lower=(0.0, 0.0),
        rows_upper=(1.5, math.inf), proves="upper", status="complete", message="The method ran to its end.",
        seconds=0.25, time_limit=10.0, memory_limit=2**30, gap=1e-4, seed=0, threads=1, device="cpu", dtype="float64",
        origin=Origin({"torch": "2.13"}, "abc", "a processor", "", "Linux"), finished="2026-01-01T00:00:00+00:00",
        trace=(TracePoint(0.1, 0.0, math.inf), TracePoint(0.2, 0.0, 2.0)),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def member(key: str = "a", task: str = "eps=0.1", series: str = "lbp", problem: str = "p") -> Member:
    return Member(task, series, key, problem, {"model": "net", "eps": 0.1})


def cells(
    study: str, labels: Mapping[str, Label], value: float, series: tuple[str, ...]
) -> Iterator[tuple[str, Record]]:
    """A record per series on one problem whose constant is ``value``."""
    problem = json.dumps(labels, sort_keys=True)
    for place, name in enumerate(series):
        low, high, status, proves = 0.0, _FACTORS.get(name, 1.0 + 0.1 * place) * value, "complete", "upper"
        if name == "attack":
            low, high, proves = 0.99 * value, math.inf, "lower"
        if name == "LipMIP":
            low, high, status, proves = 0.9 * value, 1.2 * value, "time_limit", "interval"
        if name == "LipMIP" and value > 4:
            low, high, status, proves = 0.0, math.inf, "out_of_memory", "nothing"
        if name == "bab":
            low, status, proves = 0.9999 * value, "exact", "exact"
        seconds = 0.01 * 2**place
        trace = [TracePoint(seconds * k / 4, low * k / 4, high * (2 - k / 4)) for k in range(1, 5)]
        yield name, record(
            f"{study} {problem} {name}", problem_hash=problem, network=str(labels["model"]), method=name.lower(),
            lower=low, upper=high, status=status, proves=proves, seconds=seconds, trace=trace,
            message=f"It ended: {status} <at once>.",
        )  # fmt: skip


def fill(path: Path, only: Collection[str] = ()) -> Path:
    """Write the store, or some of its studies."""
    labels: dict[str, Label]

    def put(study: str, labels: dict[str, Label], value: float, series: tuple[str, ...]) -> None:
        if not only or study in only:
            _put(store, study, labels, value, series)

    with Store(path) as store:
        for study, axis, sizes in (
            ("tiny_width", "width", (16, 32, 64)), ("tiny_depth", "depth", (2, 3, 4)), ("tiny_cnn", "width", (2, 4)),
            ("radius", "eps", (0.1, 0.3)),
        ):  # fmt: skip
            for size in sizes:
                labels = {"model": "net" if axis == "eps" else f"net{size}", "eps": 0.1, axis: size}
                put(study, labels, 1.0 + size / 16, SERIES)
        for example in range(2):
            labels = {"model": "digits", "accuracy": 0.9, "radius": "0.1", "example": example}
            put("images", labels, 2.0 + 4 * example, SERIES)
        levels = tuple(f"{kind}, {level}" for level in ("interval", "crown", "alpha-crown") for kind in ("IBP", "sdp"))
        put("ablation_relaxation", {"model": "net", "eps": 0.1}, 2.0, levels)
        put("ablation_cuts", {"model": "net", "eps": 0.1}, 2.0, ("sdp, no cuts", "sdp, 100 cuts", "attack"))
        put("ablation_branching", {"model": "net", "eps": 0.1}, 2.0, ("lbp, area", "lbp, babsr"))
        store.declare("unfinished", [Member("t", "lbp", "no such cell", "p", {"model": "net"})])
    return path


def _put(store: Store, study: str, labels: dict[str, Label], value: float, series: tuple[str, ...]) -> None:
    members = []
    for name, made in cells(study, labels, value, series):
        store.put(made)
        members.append(Member(" ".join(map(str, labels.values())), name, made.key, made.problem_hash, labels))
    store.declare(study, members)


def frame(path: Path, study: str) -> pd.DataFrame:
    with Store(path, read_only=True) as store:
        return store.frame(study)


def trace(path: Path, study: str) -> pd.DataFrame:
    with Store(path, read_only=True) as store:
        return store.trace(study)
