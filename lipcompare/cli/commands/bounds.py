"""What ``lipcompare bound`` and ``lipcompare compare`` do."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.markup import escape

from lipcompare.api import bound as run_method
from lipcompare.api import refused
from lipcompare.certificates import check_covered, differs, write_certificate
from lipcompare.cli.asked import BoundOptions, CertificateOptions, CompareOptions
from lipcompare.cli.errors import console, note
from lipcompare.cli.input import Question, input_shape, setting, settings
from lipcompare.cli.options import BudgetOptions
from lipcompare.cli.printing import bounds as printing
from lipcompare.display.progress import progress
from lipcompare.errors import Contradiction, InvalidInput, LipcompareError
from lipcompare.methods import METHODS, Method, get
from lipcompare.methods.combine import intersect
from lipcompare.network.load import load
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status, interval_text
from lipcompare.store.export import csv_safe

AUTO = "auto"


def bound(given: BoundOptions) -> None:
    """One method on one question; its exit code."""
    chosen = _chosen(given.method, given.option or [])
    problem = _problem(given)
    if given.certificate is not None:
        check_covered(problem)  # before the run, not after it
    result = _run(problem, chosen, given.limits)
    if given.json:
        typer.echo(printing.json_text(printing.as_json(problem, result)))
    else:
        printing.print_result(console(), problem, result)
    if given.witness is not None:
        printing.write_witness(given.witness, result)
    if given.certificate is not None:
        with printing.writing(given.certificate) as path:
            _certify(problem, result, path, given.limits)
    if given.plot is not None:
        from lipcompare.display import intervals

        with printing.writing(given.plot) as path:
            intervals.save(intervals.trace([result], title=f"{problem.network.name}, {result.method}"), path)
    raise typer.Exit(printing.exit_code([result]))


def _certify(problem: Problem, result: Bound, path: Path, limits: BudgetOptions) -> None:
    """Write the certificate of the first example, and say what it claims."""
    written = write_certificate(problem, result, path, time_limit=limits.time_limit, memory=int(limits.memory * 2**30))
    proved = interval_text(written.lower, written.upper)
    note(f"{path} proves a value {proved} for example 0 ({written.bytes:,} bytes); check it with lipverify {path}.")


def certificate(given: CertificateOptions) -> None:
    """Compare the network of a certificate with a model; its exit code."""
    shape = input_shape(given.network.input_shape)
    place = differs(given.file, load(given.network.model, input_shape=shape, logits=given.network.logits))
    what = f"The network in {given.file}"
    if place is None:
        console().print(escape(f"{what} is that of {given.network.model}, number by number."), soft_wrap=True)
    else:
        difference = f"{what} is not that of {given.network.model}. First difference: {place}."
        console().print(escape(difference), soft_wrap=True)
        raise typer.Exit(1)


def compare(given: CompareOptions) -> None:
    """Several methods on one question; the exit code of all."""
    chosen = _several(given.methods, given.option or [])
    problem = _problem(given)
    results, contradiction = _compared(problem, chosen, given.limits)
    if given.json:
        content = {"problem": printing.problem_json(problem), "results": [r.to_dict() for r in results]}
        typer.echo(printing.json_text(content))
    else:
        printing.print_comparison(console(), problem, results)
    if given.csv is not None:
        gap = given.limits.gap
        frame = printing.frame_of_rows(problem, results, gap) if given.rows else printing.frame(problem, results)
        with printing.writing(given.csv) as path:
            csv_safe(frame).to_csv(path, index=False)
    if given.plot is not None:
        from lipcompare.display import intervals

        with printing.writing(given.plot) as path:
            figure = intervals.comparison(printing.frame(problem, results), title=printing.describe(problem))
            intervals.save(figure, path)
    if contradiction is not None:  # everything that was found is printed and written by now
        raise contradiction
    raise typer.Exit(printing.exit_code(results))


def _problem(given: BoundOptions | CompareOptions) -> Problem:
    """What is asked; what cannot be drawn or written is refused before the work rather than after it."""
    if given.plot is not None:
        from lipcompare.display.intervals import check_format  # matplotlib takes a second

        check_format(given.plot)
    if isinstance(given, CompareOptions) and given.rows and given.csv is None:
        raise InvalidInput("--rows says what --csv writes: name a file with --csv.")
    return Question(
        **vars(given.domain), **vars(given.placement), norm=given.norm, functional=given.functional,
        classes=given.classes, memory=given.limits.memory,
    ).problem(note)  # fmt: skip


def _chosen(name: str, options: Sequence[str]) -> Method:
    """The method of ``bound`` with its options."""
    if name == AUTO and options:
        raise InvalidInput(f"--option needs a --method to belong to. Known: {', '.join(sorted(METHODS))}.")
    return get(name, **settings(options))


def _several(names: str | None, options: Sequence[str]) -> list[Method]:
    """The methods of ``compare`` with their options: those of ``--option``, and before them those beside a name."""
    listed = list(METHODS) if names is None else [name.strip() for name in names.split(",") if name.strip()]
    if not listed:
        raise InvalidInput(f"--methods names no method. Known: {', '.join(sorted(METHODS))}.")
    wanted = [_with_options(text) for text in listed]
    shared: dict[str, dict[str, str]] = {name: {} for name, _ in wanted}
    for text in options:
        name, value = setting(text)
        method, dot, field = name.partition(".")
        if not dot or method not in shared:
            several = f" {_TWICE}" if len(shared) < len(wanted) else ""
            raise InvalidInput(f"--option {text}: write method.name=value with one of {', '.join(shared)}.{several}")
        shared[method][field] = value
    chosen = [get(name, **{**shared[name], **own}) for name, own in wanted]
    for k, made in enumerate(chosen):
        if made in chosen[:k]:
            raise InvalidInput(f"--methods names {made.name} twice with the same options. {_TWICE}")
    return chosen


_TWICE = "To compare two solvers, write them beside the method's name: --methods milp:solver=pulp,milp:solver=highs."


def _with_options(text: str) -> tuple[str, dict[str, str]]:
    """Name and options of a method, ``name:option=value:option=value``; values may have colons, as ``pulp:HiGHS``."""
    name, *given = re.split(r":(?=\w+=)", text)
    return name.strip(), settings(given)


def _names(chosen: Sequence[Method]) -> list[str]:
    """What the methods are called; where one is there several times, with its options."""
    names = [method.name for method in chosen]
    if len(set(names)) == len(names):
        return names
    from lipcompare.study.compare import told_apart  # which loads what frames need

    return told_apart(chosen)


def _run(problem: Problem, method: Method, limits: BudgetOptions, *, title: str = "") -> Bound:
    """One method under the limits, with its progress on stderr."""
    with progress(console(stderr=True), after=0.0) as announce:
        display = announce(title or method.name)
        return run_method(
            problem,
            method,
            time_limit=limits.time_limit,
            gap=limits.gap,
            memory=int(limits.memory * 2**30),
            threads=limits.threads,
            progress=False,
            on_progress=display.show,
            on_note=display.note,
        )


def _compared(
    problem: Problem, chosen: Sequence[Method], limits: BudgetOptions
) -> tuple[list[Bound], Contradiction | None]:
    """The methods one after another, and whether any contradicts itself or another one.

    A method that fails keeps its line; Ctrl-C ends the last one and keeps the others.
    """
    results: list[Bound] = []
    contradiction = None
    names = _names(chosen)
    for k, method in enumerate(chosen):
        several = f" ({k + 1} of {len(chosen)})" if len(chosen) > 1 else ""
        try:
            result = _run(problem, method, limits, title=f"{names[k]}{several}")
        except LipcompareError as error:
            result = refused(problem, method, error)
            contradiction = error if isinstance(error, Contradiction) else contradiction
        results.append(dataclasses.replace(result, method=names[k]))
        if results[-1].status is Status.INTERRUPTED:
            break
    try:
        intersect(results)
    except Contradiction as error:
        contradiction = contradiction or error
    return results, contradiction
