"""What ``lipcompare jacobian``, ``monotone``, ``certify`` and ``operator-norm`` do."""

from __future__ import annotations

import time

import typer

from lipcompare.cli.asked import CertifyOptions, JacobianOptions, MonotoneOptions, OperatorNormOptions
from lipcompare.cli.errors import INTERRUPTED, OUT_OF_MEMORY, console, note
from lipcompare.cli.input import Question, directions, indices, radius, settings
from lipcompare.cli.printing import answers as printing
from lipcompare.cli.printing.bounds import json_text, seconds_text, write_arrays
from lipcompare.errors import InvalidInput, nearest
from lipcompare.jacobian import RELAXATIONS
from lipcompare.methods import get
from lipcompare.problem import Norm
from lipcompare.questions import (
    AUTO,
    BAB,
    EXACT_RADIUS,
    FORWARD,
    LIPBAB,
    LIPSDP,
    NAIVE,
    SDP,
    certified_radius,
    directional_bounds,
    exact_operator_norms,
    jacobian_bounds,
    monotonicity,
    operator_norm_bounds,
)
from lipcompare.result import Status

EXACT = (BAB, LIPBAB)
"""What proves operator norms to the gap."""


def jacobian(given: JacobianOptions) -> None:
    """Every entry of the Jacobian, or its products with directions."""
    _check_method(given.method)
    question = Question(
        **vars(given.domain), **vars(given.placement), functional=given.functional, classes=given.classes
    )
    problem = question.problem(note)
    started = time.perf_counter()
    if given.direction is None:
        bounds = jacobian_bounds(problem, given.method, time_limit=given.time_limit)
    else:
        vectors = directions(given.direction, problem.network)
        bounds = directional_bounds(problem, vectors, given.method, time_limit=given.time_limit)
    seconds = time.perf_counter() - started
    along = "input" if given.direction is None else "direction"
    if given.json:
        typer.echo(json_text(printing.entries_json(problem, bounds, along, given.method, seconds)))
    else:
        printing.print_entries(console(), problem, bounds, along, f"{given.method}, {seconds_text(seconds)}")
    if given.out is not None:
        write_arrays(given.out, {"lower": bounds.lower, "upper": bounds.upper})
    _exit_with(bounds.status)


def monotone(given: MonotoneOptions) -> None:
    """In which inputs the functionals are monotone."""
    _check_method(given.method)
    question = Question(
        **vars(given.domain), **vars(given.placement), functional=given.functional, classes=given.classes
    )
    problem = question.problem(note)
    started = time.perf_counter()
    chosen = None if given.features is None else indices(given.features, "--features", problem.network.in_size)
    answer = monotonicity(problem, chosen, given.method, time_limit=given.time_limit)
    seconds = time.perf_counter() - started
    if given.json:
        typer.echo(json_text(printing.monotone_json(problem, answer, given.method, seconds)))
    else:
        printing.print_monotone(console(), problem, answer, f"{given.method}, {seconds_text(seconds)}")
    if given.out is not None:
        write_arrays(given.out, printing.monotone_arrays(answer))
    _exit_with(answer.status)


def certify(given: CertifyOptions) -> None:
    """Radii within which the class does not change."""
    changes = settings(given.option or [])
    radius_only = given.method in (*FORWARD, AUTO, EXACT_RADIUS)
    if radius_only and changes:
        raise InvalidInput(f"Method {given.method!r} takes no options here.")
    chosen = given.method if radius_only else get(given.method, **changes)
    question = Question(**vars(given.points), **vars(given.placement), norm=given.norm)
    at = None if given.at is None else radius(given.at, "--at")
    network, points = question.examples(note)
    classes = None if given.label is None else question.labels(given.label, len(points))
    targets = None if given.target is None else indices(given.target, "--target", network.out_size)
    certificate = certified_radius(
        network, points, classes, norm=given.norm, method=chosen, targets=targets,
        largest=given.largest if at is None else at, steps=given.steps, gap=given.gap, time_limit=given.time_limit,
        clip=question.clip_range, device=points.device, dtype=points.dtype,
    )  # fmt: skip
    if given.json:
        typer.echo(json_text(printing.radii_json(network, certificate, given.method, at, targets)))
    else:
        printing.print_radii(
            console(), network, points, certificate, given.method, at, targets, labelled=classes is not None
        )
    _exit_with(certificate.status)


def operator_norm(given: OperatorNormOptions) -> None:
    """The operator norm of the whole Jacobian."""
    norms = Norm.parse(given.norm)
    if given.method not in EXACT:
        _check_method(given.method, SDP, LIPSDP, NAIVE, *EXACT)
    network, domain = Question(**vars(given.domain), **vars(given.placement)).domain(note)
    if given.method in EXACT:
        answer = exact_operator_norms(
            network, domain, norms, method=given.method, gap=given.gap, time_limit=given.time_limit
        )
    else:
        answer = operator_norm_bounds(network, domain, norms, given.method, time_limit=given.time_limit)
    if given.json:
        typer.echo(json_text(printing.operator_json(network, domain, answer, given.method)))
    else:
        printing.print_operator(console(), network, domain, answer, given.method)
    if given.out is not None:
        write_arrays(given.out, {"lower": answer.lower, "upper": answer.upper, "points": answer.points})
    if answer.status is Status.INTERRUPTED:
        raise typer.Exit(INTERRUPTED)


def _exit_with(status: Status) -> None:
    """The exit code of a question that ended early, after what it had proved was printed."""
    codes = {Status.INTERRUPTED: INTERRUPTED, Status.OUT_OF_MEMORY: OUT_OF_MEMORY}
    if status in codes:
        raise typer.Exit(codes[status])


def _check_method(name: str, *others: str) -> None:
    """Whether a question knows the method, before the model is read."""
    if name not in (*RELAXATIONS, *others):
        raise InvalidInput(f"Method {name!r} does not answer this question.{nearest(name, [*RELAXATIONS, *others])}")
