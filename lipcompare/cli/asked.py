"""What each command is asked: an object per command, whose fields are its options. Loads nothing heavy."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from lipcompare.cli import options
from lipcompare.cli.options import (
    OUT,
    QUESTION,
    RUN,
    BudgetOptions,
    Domain,
    Placement,
    Points,
    StoreFile,
    Which,
    require_gap,
    require_time,
)

# The names that other tables have, which take long to load; a test compares them.
RELAXATIONS = ("lbp", "middle", "recurjac", "ibp")
PLOTS = ("values", "sweep", "pareto", "profile", "traces", "statuses")


def _file(text: str, *names: str) -> typer.models.OptionInfo:
    """An option that names a file, which is called like its field unless it has names."""
    made: typer.models.OptionInfo = typer.Option(*names, help=text, metavar="FILE", rich_help_panel=OUT)
    return made


OutFile = Annotated[str | None, typer.Option("--out", help="Write all numbers (.npz).", metavar="FILE",
                                             rich_help_panel=OUT)]  # fmt: skip
HowEntries = Annotated[
    str, typer.Option("--method", "-m", help=f"How to bound: {', '.join(RELAXATIONS)}.", rich_help_panel=RUN)
]


@dataclasses.dataclass(frozen=True)
class BoundOptions:
    """Of ``lipcompare bound``."""

    domain: Domain
    limits: BudgetOptions
    placement: Placement
    norm: options.NormName = "inf"
    functional: options.Functional = "outputs"
    classes: options.Classes = None
    method: options.MethodName = "auto"
    option: options.Option = None
    json: options.Json = False
    witness: Annotated[str | None, _file("Write the bounds and the points that attain the lower ones (.npz).")] = None
    certificate: Annotated[
        str | None, _file("Write a proof of both ends that lipverify checks, within another --time-limit (.npz).")
    ] = None
    plot: Annotated[str | None, _file("Draw the interval over time (.png, .pdf, .svg).")] = None


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """Of ``lipcompare compare``."""

    domain: Domain
    limits: BudgetOptions
    placement: Placement
    norm: options.NormName = "inf"
    functional: options.Functional = "outputs"
    classes: options.Classes = None
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods", "-m",
            help="Names separated by commas (default: all), also with options: milp:solver=pulp,milp.",
            show_default=False, rich_help_panel=RUN,
        ),
    ] = None  # fmt: skip
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="An option of one method, method.name=value.", rich_help_panel=RUN),
    ] = None
    json: options.Json = False
    csv: Annotated[str | None, _file("Write a row per example and method.")] = None
    rows: Annotated[
        bool, typer.Option("--rows", help="Write a row for every functional, with its name.", rich_help_panel=OUT)
    ] = False
    plot: Annotated[str | None, _file("Draw the methods side by side (.png, .pdf, .svg).")] = None


@dataclasses.dataclass(frozen=True)
class JacobianOptions:
    """Of ``lipcompare jacobian``."""

    domain: Domain
    placement: Placement
    functional: options.Functional = "outputs"
    classes: options.Classes = None
    direction: Annotated[
        str | None,
        typer.Option(
            help="Derivatives along these directions (a .npy file with one or several, or numbers) instead of along "
            "each input.",
            metavar="FILE", rich_help_panel=QUESTION,
        ),
    ] = None  # fmt: skip
    method: HowEntries = "lbp"
    time_limit: options.TimeLimit = 60.0
    json: options.Json = False
    out: OutFile = None

    def __post_init__(self) -> None:
        require_time(self.time_limit)


@dataclasses.dataclass(frozen=True)
class MonotoneOptions:
    """Of ``lipcompare monotone``."""

    domain: Domain
    placement: Placement
    functional: options.Functional = "outputs"
    classes: options.Classes = None
    features: Annotated[
        str | None,
        typer.Option(
            help="Inputs to ask about: 3, 0:6 or 0,3,7 (default: all).", show_default=False, rich_help_panel=QUESTION
        ),
    ] = None
    method: HowEntries = "lbp"
    time_limit: options.TimeLimit = 60.0
    json: options.Json = False
    out: OutFile = None

    def __post_init__(self) -> None:
        require_time(self.time_limit)


@dataclasses.dataclass(frozen=True)
class CertifyOptions:
    """Of ``lipcompare certify``."""

    points: Points
    placement: Placement
    label: Annotated[
        str | None,
        typer.Option(
            "--label", "--labels", "-l",
            help="Class that must not change: a number, one per example, or a .npy file (default: the network's own).",
            show_default=False, rich_help_panel=QUESTION,
        ),
    ] = None  # fmt: skip
    target: Annotated[
        str | None,
        typer.Option(
            "--target", help="Only these classes count as a change: 3, 0:10 or 0,3,7 (default: all).",
            show_default=False, rich_help_panel=QUESTION,
        ),
    ] = None  # fmt: skip
    norm: Annotated[
        str, typer.Option("--norm", "-p", help="Norm of the radius: inf, 2 or 1.", rich_help_panel=QUESTION)
    ] = "inf"
    largest: Annotated[float, typer.Option(help="No larger radius is looked for.", rich_help_panel=QUESTION)] = 1.0
    at: Annotated[
        str | None,
        typer.Option(
            help="Also say which share of the examples is certified at this radius, such as 8/255; nothing beyond "
            "it is looked for.",
            show_default=False, rich_help_panel=QUESTION,
        ),
    ] = None  # fmt: skip
    method: Annotated[
        str,
        typer.Option(
            "--method", "-m",
            help="Bounds of the margins: interval, crown, alpha-crown; a method's name: its Lipschitz constants beside "
            "crown; auto: lbp's beside alpha-crown; exact: the true radius of a small network.",
            rich_help_panel=RUN,
        ),
    ] = "auto"  # fmt: skip
    option: options.Option = None
    steps: Annotated[
        int, typer.Option(help="Effort: bisections of the radius, and half the steps of slopes.", rich_help_panel=RUN)
    ] = 12
    time_limit: Annotated[float, typer.Option("--time-limit", "-t", help="Seconds in all.", rich_help_panel=RUN)] = (
        600.0
    )
    gap: options.Gap = 1e-4
    json: options.Json = False

    def __post_init__(self) -> None:
        require_time(self.time_limit)
        require_gap(self.gap)


@dataclasses.dataclass(frozen=True)
class OperatorNormOptions:
    """Of ``lipcompare operator-norm``."""

    domain: Domain
    placement: Placement
    norm: Annotated[
        str, typer.Option("--norm", "-p", help="Norm p on inputs and outputs: inf, 2 or 1.", rich_help_panel=QUESTION)
    ] = "inf"
    method: Annotated[
        str,
        typer.Option(
            "--method", "-m",
            help=f"The upper bound: {', '.join((*RELAXATIONS, 'sdp', 'lipsdp', 'naive'))}; bab or lipbab prove the "
            "value.",
            rich_help_panel=RUN,
        ),
    ] = "lbp"  # fmt: skip
    time_limit: options.TimeLimit = 60.0
    gap: options.Gap = 1e-4
    json: options.Json = False
    out: OutFile = None

    def __post_init__(self) -> None:
        require_time(self.time_limit)
        require_gap(self.gap)


@dataclasses.dataclass(frozen=True)
class MethodsOptions:
    """Of ``lipcompare methods``."""

    method: Annotated[
        str | None,
        typer.Argument(
            metavar="METHOD", help="Explain this one and its options.", show_default=False,
            autocompletion=options.method_names,
        ),
    ] = None  # fmt: skip
    json: options.Json = False


@dataclasses.dataclass(frozen=True)
class ResultsOptions:
    """Of ``lipcompare results``."""

    file: StoreFile
    which: Which
    limit: Annotated[int, typer.Option("--limit", "-n", help="Rows to show; 0 shows all.", rich_help_panel=OUT)] = 20
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.", rich_help_panel=OUT)
    ] = False
    export: Annotated[str | None, _file("Write the rows, with options and provenance, to a .csv or .parquet file.")] = (
        None
    )
    trace: Annotated[
        bool,
        typer.Option(
            "--trace", help="Export a row per trace point instead: seconds, lower, upper.", rich_help_panel=OUT
        ),
    ] = False
    forget: Annotated[
        bool,
        typer.Option(
            "--forget", help="Delete these cells, so that the study's next run computes them again.",
            rich_help_panel=OUT,
        ),
    ] = False  # fmt: skip
    imported: Annotated[
        str | None,
        _file(
            "Put the rows of an exported .csv or .parquet file into the store, which is made if need be.", "--import"
        ),
    ] = None
    import_trace: Annotated[str | None, _file("With --import: the exported traces of these rows.")] = None
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Keep what is whole of a damaged store; the old file stays as FILE.damaged.",
            rich_help_panel=OUT,
        ),
    ] = False  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CertificateOptions:
    """Of ``lipcompare certificate``."""

    file: Annotated[str, typer.Argument(metavar="FILE", help="What --certificate wrote.", show_default=False)]
    network: options.Loaded


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Of ``lipcompare report``."""

    file: StoreFile
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder for the page and the raw rows.", rich_help_panel=OUT)
    ] = "report"


@dataclasses.dataclass(frozen=True)
class PlotOptions:
    """Of ``lipcompare plot``."""

    file: StoreFile
    which: Which
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="The picture's file: .pdf, .svg or .png.", metavar="FILE", show_default=False,
            rich_help_panel=OUT,
        ),
    ]  # fmt: skip
    kind: Annotated[str, typer.Option(help=f"What to draw: {', '.join(PLOTS)}.", rich_help_panel=OUT)] = "pareto"
