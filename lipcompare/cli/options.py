"""The options of the command line, each declared once with the help that a user reads, and the groups in which commands
take them. Loads nothing heavy: ``--help`` is made from this alone."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from lipcompare.cli.errors import NOTHING_PROVED, errors
from lipcompare.errors import InvalidInput, require_file

BOX, QUESTION, RUN, OUT = "The box", "The question", "The run", "The output"

EXIT_CODES = """[bold]Exit codes[/bold]

  0  something was proved
  1  a contradiction: a bug, please report it
  2  bad input
  3  an operation, method or solver that is not supported or not there
  4  out of memory
  5  an unexpected error: a bug too, please report it
130  interrupted or terminated; what was proved until then is printed"""

METHODS = (
    "naive", "ibp", "recurjac", "lbp", "lp", "lipsdp", "sdp", "milp", "bab", "lipbab", "enumerate", "attack", "exact",
    "auto",
)  # fmt: skip
"""Our methods, for a shell that completes their names; the table itself takes long to load."""


def method_names(begun: str) -> list[str]:
    """Those that begin so."""
    return [name for name in METHODS if name.startswith(begun)]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A trained network: .onnx, .pt2 (torch.export.save), or .npz with W0, b0, W1, b1, ...",
        show_default=False,
    ),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        "-i",
        help="A .npy file with one input or a batch; boxes are placed around each.",
        rich_help_panel=BOX,
    ),
]
Center = Annotated[
    str | None,
    typer.Option(
        help="Instead: one number for every entry, numbers separated by commas, or a .npy file.", rich_help_panel=BOX
    ),
]
Eps = Annotated[
    str | None,
    typer.Option(
        "--eps", "-e", help="Radius of the box: 0.1, 8/255, or one per entry (numbers or .npy).", rich_help_panel=BOX
    ),
]
Lower = Annotated[
    str | None, typer.Option(help="Instead: lower corner of the box (number, numbers or .npy) ...", rich_help_panel=BOX)
]
Upper = Annotated[str | None, typer.Option(help="... and its upper corner.", rich_help_panel=BOX)]
Vnnlib = Annotated[
    str | None, typer.Option(help="Instead: the input box of a VNN-LIB file.", metavar="FILE", rich_help_panel=BOX)
]
Clip = Annotated[
    str | None, typer.Option(help="Cut the box with the range of valid inputs, such as 0,1.", rich_help_panel=BOX)
]
Ball = Annotated[
    str,
    typer.Option(
        help="Shape of the set around the input: inf (a box), or a ball of radius --eps in the norm 2 or 1.",
        rich_help_panel=BOX,
    ),
]
Everywhere = Annotated[
    bool, typer.Option("--everywhere", help="Instead: all inputs (a global constant).", rich_help_panel=BOX)
]
InputIndex = Annotated[
    str | None, typer.Option(help="Examples to take from a batch: 3, 0:10 or 0,3,7.", rich_help_panel=BOX)
]
Scale = Annotated[float, typer.Option(help="Divide --input by this: 255 turns bytes into 0..1.", rich_help_panel=BOX)]
InputShape = Annotated[
    str | None,
    typer.Option(help="Shape of one input, such as 1,28,28, for a model that does not say.", rich_help_panel=QUESTION),
]
Logits = Annotated[
    bool, typer.Option("--logits", help="Leave out a softmax at the model's end.", rich_help_panel=QUESTION)
]
NormName = Annotated[
    str, typer.Option("--norm", "-p", help="Norm on the input: inf, 2 or 1.", rich_help_panel=QUESTION)
]
Functional = Annotated[
    str,
    typer.Option(
        "--functional",
        "-f",
        help="What is differentiated: outputs; 3 (one of them); margins:LABEL (label's output minus each other; LABEL "
        "a number, one per example, a .npy file, or own, what the network says at the centre); margins:3:5 (minus one "
        "other); or a .npy matrix with a row per functional.",
        rich_help_panel=QUESTION,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        help="Names of the outputs, separated by commas, or a text file with one per line: cat-dog instead of 3-5.",
        rich_help_panel=QUESTION,
    ),
]
MethodName = Annotated[
    str,
    typer.Option(
        "--method",
        "-m",
        help="A name that `lipcompare methods` lists; auto gives an interval.",
        autocompletion=method_names,
        rich_help_panel=RUN,
    ),
]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="An option of the method, name=value.", rich_help_panel=RUN),
]
TimeLimit = Annotated[
    float, typer.Option("--time-limit", "-t", help="Seconds per method; inf for none.", rich_help_panel=RUN)
]
Gap = Annotated[float, typer.Option(help="Relative gap at which an interval counts as exact.", rich_help_panel=RUN)]
Memory = Annotated[float, typer.Option(help="Working memory in GiB that batched passes respect.", rich_help_panel=RUN)]
Threads = Annotated[int, typer.Option(help="CPU threads; `bab` searches on so many processes.", rich_help_panel=RUN)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.", rich_help_panel=RUN)]
Dtype = Annotated[str, typer.Option(help="float64 or float32.", rich_help_panel=RUN)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.", rich_help_panel=OUT)]


STATUSES = (
    "complete", "exact", "time_limit", "node_limit", "memory_limit", "interrupted", "unsupported", "unavailable",
    "licence_too_small", "out_of_memory", "numerical", "crashed", "pending",
)  # fmt: skip
"""How a cell may have ended, as ``lipcompare.store.filter`` has it, which takes long to load."""

StoreFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A results store that a study wrote (.sqlite).", show_default=False)
]


def _which(*names: str, text: str) -> Any:
    return typer.Option(*names, help=f"{text}; may be repeated.", rich_help_panel="Which cells")


@dataclasses.dataclass(frozen=True)
class Which:
    """The cells of a store that are meant."""

    study: Annotated[list[str] | None, _which("--study", "-s", text="Of this study")] = None
    task: Annotated[
        list[str] | None, _which("--task", "-k", text='With this text in the problem\'s name, such as "width=32"')
    ] = None
    method: Annotated[
        list[str] | None, _which("--method", "-m", text="Of this method, by its name or by its name in the study")
    ] = None
    status: Annotated[list[str] | None, _which("--status", text=f"That ended in this way: {', '.join(STATUSES)}")] = (
        None
    )


# Beyond any machine, and within what the libraries underneath can count.
_MOST_MEMORY, _MOST_THREADS = 1_000_000, 10_000


@dataclasses.dataclass(frozen=True)
class Points:
    """A network and inputs of it."""

    model: Model
    input: Input = None
    center: Center = None
    clip: Clip = None
    input_index: InputIndex = None
    scale: Scale = 1.0
    input_shape: InputShape = None
    logits: Logits = False

    def __post_init__(self) -> None:
        _require_model(self.model)


@dataclasses.dataclass(frozen=True)
class Domain:
    """A network and a set of its inputs, in one of the ways of giving one."""

    model: Model
    input: Input = None
    center: Center = None
    eps: Eps = None
    lower: Lower = None
    upper: Upper = None
    vnnlib: Vnnlib = None
    clip: Clip = None
    ball: Ball = "inf"
    everywhere: Everywhere = False
    input_index: InputIndex = None
    scale: Scale = 1.0
    input_shape: InputShape = None
    logits: Logits = False

    def __post_init__(self) -> None:
        _require_model(self.model)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network alone."""

    model: Model
    input_shape: InputShape = None
    logits: Logits = False

    def __post_init__(self) -> None:
        _require_model(self.model)


def _require_model(path: str) -> None:
    """That there is such a file is known before anything is loaded to read it; other kinds are told apart there."""
    if Path(path).suffix.lower() in (".onnx", ".pt2", ".npz"):
        require_file(path)


def require_time(seconds: float) -> None:
    """Whether a time limit is one."""
    if not seconds > 0:
        raise InvalidInput("--time-limit must be a positive number of seconds.")


def require_gap(gap: float) -> None:
    """Whether a gap is one."""
    if not 0 <= gap < 1:
        raise InvalidInput("--gap must be at least 0 and under 1, such as 0.01 for one per cent.")


@dataclasses.dataclass(frozen=True)
class BudgetOptions:
    """The budget of each method, as the user gave it."""

    time_limit: TimeLimit = 60.0
    gap: Gap = 1e-4
    memory: Memory = 1.0
    threads: Threads = 1

    def __post_init__(self) -> None:
        require_time(self.time_limit)
        require_gap(self.gap)
        if not 0 < self.memory <= _MOST_MEMORY:
            raise InvalidInput(f"--memory must be a positive number of GiB, at most {_MOST_MEMORY:,}.")
        if not 1 <= self.threads <= _MOST_THREADS:
            raise InvalidInput(f"--threads must be at least 1 and at most {_MOST_THREADS:,}.")


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where and in which precision to compute."""

    device: Device = "cpu"
    dtype: Dtype = "float64"


T = TypeVar("T")


def takes(
    options: type[T], *, interrupted: str = NOTHING_PROVED
) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Make a command of a function that takes one object: its options are the fields of that dataclass and of the
    dataclasses among them, read once. What goes wrong, also in reading them, is one sentence and an exit code.

    Args:
        interrupted: what is said where Ctrl-C ends the command without a result.
    """
    parameters = list(_parameters(options))

    def decorate(body: Callable[[T], None]) -> Callable[..., None]:
        @functools.wraps(body)
        def command(**given: Any) -> None:
            with errors(interrupted):
                body(_read(options, given))

        del command.__wrapped__  # its signature is not the command's
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _parameters(options: type[Any]) -> Iterator[inspect.Parameter]:
    """One per option, the groups' among them."""
    types = typing.get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(types[field.name]):
            yield from _parameters(types[field.name])
            continue
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name]
        )


def _read(options: type[T], given: dict[str, Any]) -> T:
    types = typing.get_type_hints(options)
    values = {
        field.name: _read(types[field.name], given)
        if dataclasses.is_dataclass(types[field.name])
        else given[field.name]
        for field in dataclasses.fields(options)  # type: ignore[arg-type]  # a dataclass, as all that come here are
    }
    return options(**values)
