"""``lipcompare jacobian``, ``monotone``, ``certify`` and ``operator-norm``: further questions about the gradient."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lipcompare.cli import answers as cli_answers
from lipcompare.cli import input as cli_input
from lipcompare.cli import options as cli_options
from lipcompare.cli import output as cli_output
from lipcompare.cli.errors import console, errors, note
from lipcompare.cli.input import Question
from lipcompare.errors import InvalidInput, nearest
from lipcompare.jacobian import RELAXATIONS
from lipcompare.methods import get
from lipcompare.problem import Norm
from lipcompare.questions import (
    NAIVE,
    certified_radius,
    directional_bounds,
    exact_operator_norms,
    jacobian_bounds,
    monotonicity,
    operator_norm_bounds,
)

EXACT = "lipbab"
"""What proves operator norms to the gap: a search over activation regions."""

HowEntries = Annotated[
    str,
    typer.Option(
        "--method", "-m", help=f"How to bound: {', '.join(RELAXATIONS)}.",
        rich_help_panel=cli_options.RUN,
    ),
]  # fmt: skip
OutFile = Annotated[
    str | None, typer.Option("--out", help="Write all numbers (.npz).", metavar="FILE", rich_help_panel=cli_options.OUT)
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (jacobian, monotone, certify):
        app.command(epilog=cli_options.EXIT_CODES)(command)
    app.command(name="operator-norm", epilog=cli_options.EXIT_CODES)(operator_norm)


def jacobian(
    model: cli_options.Model,
    input_: cli_options.Input = None,
    center: cli_options.Center = None,
    eps: cli_options.Eps = None,
    lower: cli_options.Lower = None,
    upper: cli_options.Upper = None,
    vnnlib: cli_options.Vnnlib = None,
    clip: cli_options.Clip = None,
    ball: cli_options.Ball = "inf",
    everywhere: cli_options.Everywhere = False,
    input_index: cli_options.InputIndex = None,
    scale: cli_options.Scale = 1.0,
    input_shape: cli_options.InputShape = None,
    logits: cli_options.Logits = False,
    functional: cli_options.Functional = "outputs",
    direction: Annotated[
        str | None,
        typer.Option(
            help="Derivatives along these directions (a .npy file with one or several, or numbers) instead of along "
            "each input.",
            metavar="FILE", rich_help_panel=cli_options.QUESTION,
        ),
    ] = None,
    method: HowEntries = "lbp",
    device: cli_options.Device = "cpu",
    dtype: cli_options.Dtype = "float64",
    json: cli_options.Json = False,
    out: OutFile = None,
) -> None:  # fmt: skip
    """Bound every entry of the Jacobian over a box, or its products with given directions.

    Entry (i, j) is the derivative of functional i in input j. A sign that is
    proved says whether the functional rises or falls in that input.

    [bold]Examples[/bold]

    lipcompare jacobian net.onnx --center 0.5 --eps 0.1
    lipcompare jacobian net.onnx -i x.npy -e 8/255 -f margins:3 --out entries.npz
    lipcompare jacobian net.onnx --center 0.5 -e 0.1 --direction d.npy --json
    """
    with errors():
        _check_method(method)
        problem = Question(
            model, input_, center, eps, lower, upper, vnnlib, clip, input_index, scale, input_shape,
            functional=functional, device=device, dtype=dtype, ball=ball, everywhere=everywhere, logits=logits,
        ).problem(note)  # fmt: skip
        started = time.perf_counter()
        if direction is None:
            bounds = jacobian_bounds(problem, method)
        else:
            bounds = directional_bounds(problem, cli_input.directions(direction, problem.network), method)
        seconds = time.perf_counter() - started
        along = "input" if direction is None else "direction"
        if json:
            typer.echo(cli_output.json_text(cli_answers.entries_json(problem, bounds, along, method, seconds)))
        else:
            cli_answers.print_entries(
                console(), problem, bounds, along, f"{method}, {cli_output.seconds_text(seconds)}"
            )
        if out is not None:
            cli_output.write_arrays(out, {"lower": bounds.lower, "upper": bounds.upper})


def monotone(
    model: cli_options.Model,
    features: Annotated[
        str | None,
        typer.Option(
            help="Inputs to ask about: 3, 0:6 or 0,3,7 (default: all).", show_default=False,
            rich_help_panel=cli_options.QUESTION,
        ),
    ] = None,
    input_: cli_options.Input = None,
    center: cli_options.Center = None,
    eps: cli_options.Eps = None,
    lower: cli_options.Lower = None,
    upper: cli_options.Upper = None,
    vnnlib: cli_options.Vnnlib = None,
    clip: cli_options.Clip = None,
    ball: cli_options.Ball = "inf",
    everywhere: cli_options.Everywhere = False,
    input_index: cli_options.InputIndex = None,
    scale: cli_options.Scale = 1.0,
    input_shape: cli_options.InputShape = None,
    logits: cli_options.Logits = False,
    functional: cli_options.Functional = "outputs",
    method: HowEntries = "lbp",
    device: cli_options.Device = "cpu",
    dtype: cli_options.Dtype = "float64",
    json: cli_options.Json = False,
    out: OutFile = None,
) -> None:  # fmt: skip
    """Decide whether each functional is monotone in the chosen inputs over a box.

    Four answers: proved increasing, proved decreasing, neither (with two points
    where the derivative has opposite signs), or undecided.

    [bold]Examples[/bold]

    lipcompare monotone net.onnx --features 0,3 --lower 0 --upper 1
    lipcompare monotone net.onnx --features 0:6 -i rows.npy -e 0.1 --out answer.npz
    """
    with errors():
        _check_method(method)
        problem = Question(
            model, input_, center, eps, lower, upper, vnnlib, clip, input_index, scale, input_shape,
            functional=functional, device=device, dtype=dtype, ball=ball, everywhere=everywhere, logits=logits,
        ).problem(note)  # fmt: skip
        started = time.perf_counter()
        chosen = None if features is None else cli_input.indices(features, "--features", problem.network.in_size)
        answer = monotonicity(problem, chosen, method)
        seconds = time.perf_counter() - started
        if json:
            typer.echo(cli_output.json_text(cli_answers.monotone_json(problem, answer, method, seconds)))
        else:
            cli_answers.print_monotone(console(), problem, answer, f"{method}, {cli_output.seconds_text(seconds)}")
        if out is not None:
            cli_output.write_arrays(out, cli_answers.monotone_arrays(answer))


def certify(
    model: cli_options.Model,
    input_: cli_options.Input = None,
    center: cli_options.Center = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label", "-l",
            help="Class that must not change: a number, one per example, or a .npy file (default: the network's own).",
            show_default=False, rich_help_panel=cli_options.QUESTION,
        ),
    ] = None,
    norm: Annotated[
        str, typer.Option("--norm", "-p", help="Norm of the radius: inf, 2 or 1.", rich_help_panel=cli_options.QUESTION)
    ] = "inf",
    largest: Annotated[
        float, typer.Option(help="No larger radius is looked for.", rich_help_panel=cli_options.QUESTION)
    ] = 1.0,
    clip: cli_options.Clip = None,
    input_index: cli_options.InputIndex = None,
    scale: cli_options.Scale = 1.0,
    input_shape: cli_options.InputShape = None,
    logits: cli_options.Logits = False,
    method: cli_options.MethodName = "lbp",
    option: cli_options.Option = None,
    steps: Annotated[
        int, typer.Option(help="Bisections of the radius.", rich_help_panel=cli_options.RUN)
    ] = 12,
    time_limit: cli_options.TimeLimit = 60.0,
    device: cli_options.Device = "cpu",
    dtype: cli_options.Dtype = "float64",
    json: cli_options.Json = False,
) -> None:  # fmt: skip
    """Certify radii within which the network's class does not change, from Lipschitz constants of the margins.

    If L bounds the gradient of "label's output minus another" over a ball of
    radius r, no input within min(r, margin / L) has the other class.

    [bold]Examples[/bold]

    lipcompare certify net.onnx -i images.npy --scale 255 --clip 0,1
    lipcompare certify net.onnx -i x.npy --label 3 --norm 2 --method sdp
    """
    with errors():
        chosen = get(method, **cli_input.settings(option or []))
        question = Question(
            model, input_, center, clip=clip, input_index=input_index, scale=scale, input_shape=input_shape,
            norm=norm, device=device, dtype=dtype, logits=logits,
        )  # fmt: skip
        network, points = question.examples(note)
        classes = None if label is None else question.labels(label, len(points))
        started = time.perf_counter()
        found = certified_radius(
            network, points, classes, norm=norm, method=chosen, largest=largest, steps=steps, time_limit=time_limit,
            clip=question.clip_range, device=points.device, dtype=points.dtype,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        if json:
            typer.echo(cli_output.json_text(cli_answers.radii_json(network, found, method, seconds)))
        else:
            how = f"{method}, {cli_output.seconds_text(seconds)}"
            cli_answers.print_radii(console(), network, points, found, how)


def operator_norm(
    model: cli_options.Model,
    input_: cli_options.Input = None,
    center: cli_options.Center = None,
    eps: cli_options.Eps = None,
    lower: cli_options.Lower = None,
    upper: cli_options.Upper = None,
    vnnlib: cli_options.Vnnlib = None,
    clip: cli_options.Clip = None,
    ball: cli_options.Ball = "inf",
    everywhere: cli_options.Everywhere = False,
    input_index: cli_options.InputIndex = None,
    scale: cli_options.Scale = 1.0,
    input_shape: cli_options.InputShape = None,
    logits: cli_options.Logits = False,
    norm: Annotated[
        str,
        typer.Option(
            "--norm", "-p", help="Norm p on inputs and outputs: inf, 2 or 1.", rich_help_panel=cli_options.QUESTION
        ),
    ] = "inf",
    method: Annotated[
        str,
        typer.Option(
            "--method", "-m",
            help=f"The upper bound: {', '.join((*RELAXATIONS, NAIVE))}; or {EXACT}, which proves the value.",
            rich_help_panel=cli_options.RUN,
        ),
    ] = "lbp",
    time_limit: cli_options.TimeLimit = 60.0,
    gap: cli_options.Gap = 1e-4,
    device: cli_options.Device = "cpu",
    dtype: cli_options.Dtype = "float64",
    json: cli_options.Json = False,
    out: OutFile = None,
) -> None:  # fmt: skip
    """Bound the operator norm p -> p of the whole Jacobian: the Lipschitz constant with the same norm on both sides.

    For p = inf it is the largest l1 norm of a row of the Jacobian, for p = 1 of
    a column, for p = 2 its largest singular value, each over all the inputs.

    [bold]Examples[/bold]

    lipcompare operator-norm net.onnx --center 0.5 --eps 0.1 --norm 2
    lipcompare operator-norm net.npz --lower 0 --upper 1 --norm 1 --method lipbab
    """
    with errors():
        norms = Norm.parse(norm)
        if method != EXACT:
            _check_method(method, NAIVE, EXACT)
        question = Question(
            model, input_, center, eps, lower, upper, vnnlib, clip, input_index, scale, input_shape,
            device=device, dtype=dtype, ball=ball, everywhere=everywhere, logits=logits,
        )  # fmt: skip
        network, domain = question.domain(note)
        if method == EXACT:
            found = exact_operator_norms(network, domain, norms, gap=gap, time_limit=time_limit)
        else:
            found = operator_norm_bounds(network, domain, norms, method)
        if json:
            typer.echo(cli_output.json_text(cli_answers.operator_json(network, domain, found, method)))
        else:
            cli_answers.print_operator(console(), network, domain, found, method)
        if out is not None:
            cli_output.write_arrays(out, {"lower": found.lower, "upper": found.upper, "points": found.points})
        if found.interrupted:
            raise typer.Exit(cli_output.INTERRUPTED)


def _check_method(name: str, *others: str) -> None:
    """Whether a question knows the method, before the model is read."""
    if name not in (*RELAXATIONS, *others):
        raise InvalidInput(f"Method {name!r} does not answer this question.{nearest(name, [*RELAXATIONS, *others])}")
