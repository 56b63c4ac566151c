"""The command line: ``lipcompare bound``, ``compare``, ``methods`` and ``solvers``; the others are in cli_questions and
cli_results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import typer

import lipcompare
import solvers
from lipcompare.api import bound as run_method
from lipcompare.api import refused
from lipcompare.cli import listing as cli_listing
from lipcompare.cli import options as cli_options
from lipcompare.cli import output as cli_output
from lipcompare.cli import questions as cli_questions
from lipcompare.cli import results as cli_results
from lipcompare.cli.errors import console, errors, note, terminate_as_interrupt
from lipcompare.cli.input import Question, setting, settings
from lipcompare.combine import intersect
from lipcompare.errors import Contradiction, InvalidInput, LipcompareError
from lipcompare.methods import METHODS, Method, get
from lipcompare.problem import Problem
from lipcompare.report import plots
from lipcompare.result import Bound, Status

AUTO = "auto"

app = typer.Typer(
    name="lipcompare",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=cli_options.EXIT_CODES,
)


def main() -> None:
    """Entry point of the command ``lipcompare``."""
    terminate_as_interrupt()
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(lipcompare.__version__)
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Certified local Lipschitz constants of trained networks: how fast can the output change near an input?

    Start with [bold]lipcompare bound MODEL --center 0.5 --eps 0.1[/bold]
    """


# Beyond any machine, and within what the libraries underneath can count.
_MOST_MEMORY, _MOST_THREADS = 1_000_000, 10_000


@dataclasses.dataclass(frozen=True)
class _Limits:
    """The budget of each method, as the user gave it."""

    time_limit: float
    gap: float
    memory: float
    threads: int

    def __post_init__(self) -> None:
        if not self.time_limit > 0:
            raise InvalidInput("--time-limit must be a positive number of seconds.")
        if not 0 <= self.gap < 1:
            raise InvalidInput("--gap must be at least 0 and under 1, such as 0.01 for one per cent.")
        if not 0 < self.memory <= _MOST_MEMORY:
            raise InvalidInput(f"--memory must be a positive number of GiB, at most {_MOST_MEMORY:,}.")
        if not 1 <= self.threads <= _MOST_THREADS:
            raise InvalidInput(f"--threads must be at least 1 and at most {_MOST_THREADS:,}.")


@app.command(epilog=cli_options.EXIT_CODES)
def bound(
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
    norm: cli_options.NormName = "inf",
    functional: cli_options.Functional = "outputs",
    method: cli_options.MethodName = AUTO,
    option: cli_options.Option = None,
    time_limit: cli_options.TimeLimit = 60.0,
    gap: cli_options.Gap = 1e-4,
    memory: cli_options.Memory = 1.0,
    threads: cli_options.Threads = 1,
    device: cli_options.Device = "cpu",
    dtype: cli_options.Dtype = "float64",
    json: cli_options.Json = False,
    witness: Annotated[
        str | None,
        typer.Option(
            help="Write the bounds and the points that attain the lower ones (.npz).",
            metavar="FILE",
            rich_help_panel=cli_options.OUT,
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            help="Draw the interval over time (.png, .pdf, .svg).", metavar="FILE", rich_help_panel=cli_options.OUT
        ),
    ] = None,
) -> None:
    """Bound the local Lipschitz constant of a network on a box of inputs (or a ball, or everywhere).

    Every number printed is proved: "at least" by a point that was checked,
    "at most" by the method. "-" says that nothing is proved on that side.

    [bold]Examples[/bold]

    lipcompare bound net.onnx --center 0.5 --eps 0.1
    lipcompare bound net.onnx -i images.npy --scale 255 --eps 8/255 --clip 0,1
    lipcompare bound net.onnx --lower 0 --upper 1 --norm 2 --method lbp --json
    lipcompare bound net.onnx --vnnlib box.vnnlib --functional margins:3
    lipcompare bound net.onnx --center 0.5 --eps 1 --ball 2 --norm 2
    lipcompare bound net.onnx --everywhere --norm 2
    """
    with errors():
        limits = _Limits(time_limit, gap, memory, threads)
        chosen = _chosen(method, option or [])
        question = Question(
            model, input_, center, eps, lower, upper, vnnlib, clip, input_index, scale, input_shape, norm, functional,
            device, dtype, ball, everywhere, memory, logits,
        )  # fmt: skip
        _check_plot(plot)
        problem = question.problem(note)
        result = _run(problem, chosen, limits)
        if json:
            typer.echo(cli_output.json_text(cli_output.as_json(problem, result)))
        else:
            cli_output.print_result(console(), problem, result)
        if witness is not None:
            cli_output.write_witness(witness, result)
        if plot is not None:
            with cli_output.writing(plot) as path:
                plots.save(plots.trace([result], title=f"{problem.network.name}, {result.method}"), path)
        raise typer.Exit(cli_output.exit_code([result]))


@app.command(epilog=cli_options.EXIT_CODES)
def compare(
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
    norm: cli_options.NormName = "inf",
    functional: cli_options.Functional = "outputs",
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            "-m",
            help="Names separated by commas (default: all).",
            show_default=False,
            rich_help_panel=cli_options.RUN,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", help="An option of one method, method.name=value.", rich_help_panel=cli_options.RUN
        ),
    ] = None,
    time_limit: cli_options.TimeLimit = 60.0,
    gap: cli_options.Gap = 1e-4,
    memory: cli_options.Memory = 1.0,
    threads: cli_options.Threads = 1,
    device: cli_options.Device = "cpu",
    dtype: cli_options.Dtype = "float64",
    json: cli_options.Json = False,
    csv: Annotated[
        str | None,
        typer.Option(help="Write a row per example and method.", metavar="FILE", rich_help_panel=cli_options.OUT),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            help="Draw the methods side by side (.png, .pdf, .svg).", metavar="FILE", rich_help_panel=cli_options.OUT
        ),
    ] = None,
) -> None:
    """Run several methods on the same boxes and set their results side by side.

    A method that does not apply keeps its line and says why. The exit code is 0
    if any method proved something.

    [bold]Examples[/bold]

    lipcompare compare net.onnx --center 0.5 --eps 0.1
    lipcompare compare net.onnx -i images.npy -e 2/255 --methods lbp,attack
    lipcompare compare net.npz --center 0.5 -e 0.1 --csv out.csv --plot out.png
    """
    with errors():
        limits = _Limits(time_limit, gap, memory, threads)
        chosen = _several(methods, option or [])
        question = Question(
            model, input_, center, eps, lower, upper, vnnlib, clip, input_index, scale, input_shape, norm, functional,
            device, dtype, ball, everywhere, memory, logits,
        )  # fmt: skip
        _check_plot(plot)
        problem = question.problem(note)
        results, contradiction = _compared(problem, chosen, limits)
        if json:
            content = {"problem": cli_output.problem_json(problem), "results": [r.to_dict() for r in results]}
            typer.echo(cli_output.json_text(content))
        else:
            cli_output.print_comparison(console(), problem, results)
        frame = cli_output.frame(problem, results)
        if csv is not None:
            with cli_output.writing(csv) as path:
                frame.to_csv(path, index=False)
        if plot is not None:
            with cli_output.writing(plot) as path:
                plots.save(plots.comparison(frame, title=cli_output.describe(problem)), path)
        if contradiction is not None:  # everything that was found is printed and written by now
            raise contradiction
        raise typer.Exit(cli_output.exit_code(results))


@app.command()
def methods() -> None:
    """List the methods: what each proves, for which norms, where it comes from, and its options."""
    console().print(cli_listing.methods_table())


@app.command(name="solvers")
def list_solvers() -> None:
    """List the optimisation solvers: which are there, their licences, and what each can do."""
    console().print(cli_listing.solvers_table(solvers.all_solvers()))


def _check_plot(path: str | None) -> None:
    """Before the work rather than after it."""
    if path is not None:
        plots.check_format(path)


def _chosen(name: str, options: Sequence[str]) -> Method:
    """The method of ``bound`` with its options."""
    if name == AUTO and options:
        raise InvalidInput(f"--option needs a --method to belong to. Known: {', '.join(sorted(METHODS))}.")
    return get(name, **settings(options))


def _several(names: str | None, options: Sequence[str]) -> list[Method]:
    """The methods of ``compare`` with their options."""
    wanted = list(METHODS) if names is None else [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise InvalidInput(f"--methods names no method. Known: {', '.join(sorted(METHODS))}.")
    settings: dict[str, dict[str, str]] = {name: {} for name in wanted}
    for text in options:
        name, value = setting(text)
        method, dot, field = name.partition(".")
        if not dot or method not in settings:
            raise InvalidInput(f"--option {text}: write method.name=value with one of {', '.join(wanted)}.")
        settings[method][field] = value
    return [get(name, **given) for name, given in settings.items()]


def _run(problem: Problem, method: Method, limits: _Limits, *, title: str = "") -> Bound:
    """One method under the limits, with its progress on stderr."""
    with cli_output.progress(console(stderr=True)) as announce:
        display = announce(title or method.name)
        return run_method(
            problem,
            method,
            time_limit=limits.time_limit,
            gap=limits.gap,
            memory=int(limits.memory * 2**30),
            threads=limits.threads,
            on_progress=display.show,
            on_note=display.note,
        )


def _compared(problem: Problem, chosen: Sequence[Method], limits: _Limits) -> tuple[list[Bound], Contradiction | None]:
    """The methods one after another, and whether any contradicts itself or another one.

    A method that fails keeps its line; Ctrl-C ends the last one and keeps the others.
    """
    results: list[Bound] = []
    contradiction = None
    for k, method in enumerate(chosen):
        several = f" ({k + 1} of {len(chosen)})" if len(chosen) > 1 else ""
        try:
            results.append(_run(problem, method, limits, title=f"{method.name}{several}"))
        except LipcompareError as error:
            results.append(refused(problem, method, error))
            contradiction = error if isinstance(error, Contradiction) else contradiction
        if results[-1].status is Status.INTERRUPTED:
            break
    try:
        intersect(results)
    except Contradiction as error:
        contradiction = contradiction or error
    return results, contradiction


cli_questions.add_to(app)
cli_results.add_to(app)  # last, as the help lists commands in this order
