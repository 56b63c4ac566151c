"""Answers to the other questions, as they are printed and as JSON has them."""

from __future__ import annotations

import io
import json
import math

import nets
import numpy as np
import torch
from rich.console import Console

from lipcompare import Norm, Status
from lipcompare.cli.printing import answers
from lipcompare.cli.printing.bounds import json_text
from lipcompare.questions import Certificate, EntryBounds, Monotonicity, OperatorNorm
from lipcompare.questions.certify import Route
from lipcompare.questions.monotone import Direction

PROBLEM = nets.problem(nets.dense(0, (2, 4, 2)), 0.1)


def console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=140, highlight=False), out


def row_of(text: str, *start: str) -> list[str]:
    """The cells after a line's first ones."""
    lines = [line.split() for line in text.splitlines()]
    (found,) = [line[len(start) :] for line in lines if line[: len(start)] == list(start)]
    return found


def test_entries_are_rounded_outward_and_have_their_sign() -> None:
    lower = np.array([[[-1.234567, 0.5], [0.0, -2.0]]])
    bounds = EntryBounds(lower, lower + np.array([[[0.0, 1.0], [0.0, 1.0]]]), Status.TIME_LIMIT)
    names = PROBLEM.row_names()
    screen, out = console()
    answers.print_entries(screen, PROBLEM, bounds, "input", "test")
    assert row_of(out.getvalue(), names[0], "0")[:2] == ["-1.2346", "-1.2345"]
    assert row_of(out.getvalue(), names[0], "1")[:2] == ["0.5", "1.5"]
    assert row_of(out.getvalue(), names[1], "1")[:2] == ["-2", "-1"]
    assert "Stopped at the time limit. What was proved by then holds." in out.getvalue()
    content = json.loads(json_text(answers.entries_json(PROBLEM, bounds, "input", "test", 1.0)))
    assert content["lower"] == lower.tolist() and content["status"] == "time_limit"


def monotonicity() -> Monotonicity:
    directions = np.array([[[Direction.INCREASING, Direction.NEITHER], [Direction.UNDECIDED, Direction.CONSTANT]]])
    ends = np.array([[[0.5, -1.0], [-1.0, 0.0]]])
    points = np.arange(8.0).reshape(1, 2, 2, 2)
    return Monotonicity((0, 1), directions, ends, ends + 2, points, points + 10, ends, ends + 1)


def test_monotonicity_shows_the_two_points_of_an_answer_neither() -> None:
    answer, names = monotonicity(), PROBLEM.row_names()
    screen, out = console()
    answers.print_monotone(screen, PROBLEM, answer, "test")
    assert row_of(out.getvalue(), names[0], "0")[-1] == "increasing"
    assert row_of(out.getvalue(), names[1], "0")[-1] == "undecided"
    assert f"Functional {names[0]} rises in input 1 at (2, 3), falls at (12, 13)." in out.getvalue()
    content = json.loads(json_text(answers.monotone_json(PROBLEM, answer, "test", 1.0)))
    assert content["problem"]["functional_names"] == [names]
    assert answers.monotone_arrays(answer)["rising"].shape == (1, 2, 2, 2)


def test_radii_say_which_examples_are_wrong_and_how_many_are_certified() -> None:
    certificate = Certificate(
        norm=Norm.INF,
        radius=np.array([0.123456789, 0.0]),
        labels=np.array([0, 1]),
        correct=np.array([True, False]),
        margin=np.array([1.0, -0.5]),
        route=np.array([Route.FORWARD, Route.FORWARD]),
        upper=np.array([0.5, math.inf]),
        points=np.array([[1.0, 2.0], [math.nan, math.nan]]),
        status=Status.TIME_LIMIT,
    )
    points = torch.zeros(2, 2, dtype=torch.float64)
    screen, out = console()
    answers.print_radii(screen, PROBLEM.network, points, certificate, "test", 0.1, labelled=True)
    assert row_of(out.getvalue(), "0", "0")[:3] == ["1", "0.12345", "0.5"]
    assert "the network says" in out.getvalue() and "Right and certified within 0.1: 50.00% of 2" in out.getvalue()
    assert "Stopped at the time limit." in out.getvalue()
    assert "gets another class;" in out.getvalue()
    screen, out = console()
    answers.print_radii(screen, PROBLEM.network, points, certificate, "test", None, [1], labelled=False)
    assert "gets class 1;" in out.getvalue()
    content = json.loads(json_text(answers.radii_json(PROBLEM.network, certificate, "test", 0.1)))
    assert content["upper"] == [0.5, None] and content["points"] == [[1.0, 2.0], None]
    assert content["certified_share"] == 0.5 and content["status"] == "time_limit"


def test_operator_norms() -> None:
    answer = OperatorNorm(Norm.TWO, np.array([1.0]), np.array([2.0]), np.zeros((1, 2)), np.array([False]), 0.5)
    screen, out = console()
    answers.print_operator(screen, PROBLEM.network, PROBLEM.box, answer, "test")
    assert [cell for line in out.getvalue().splitlines() for cell in line.split() if cell in ("1", "2")][-2:] == [
        "1",
        "2",
    ]
    content = json.loads(json_text(answers.operator_json(PROBLEM.network, PROBLEM.box, answer, "test")))
    assert (content["lower"], content["upper"], content["norm"]) == ([1.0], [2.0], "2")
