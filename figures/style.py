"""What the figures share: their command line, the look of every method, and how pictures and tables are written."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lipcompare.display.style import COLUMN, GREY, GRID, PAGE, Look, handle, line_style, looks, new_figure, style
from lipcompare.errors import LipcompareError
from lipcompare.report.tables import Table
from lipcompare.store.database import Store

__all__ = [
    "COLUMN", "GREY", "GRID", "PAGE", "Look", "Results", "Settings", "handle", "line_style", "looks", "main",
    "new_figure", "save", "save_table", "style",
]  # fmt: skip

FORMATS = ("pdf", "svg", "png")
STORE = Path("results") / "results.sqlite"
OUT = Path("results") / "figures"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where results come from and pictures go to, and in which formats."""

    store: Path = STORE
    out: Path = OUT
    formats: Sequence[str] = FORMATS


@dataclasses.dataclass(frozen=True)
class Results:
    """A study's rows and trace."""

    frame: pd.DataFrame
    trace: pd.DataFrame

    @classmethod
    def read(cls, settings: Settings, *studies: str) -> Results:
        """The named studies (all without a name), or an error that says what to run."""
        with Store(settings.store, read_only=True) as store:
            names = studies or tuple(store.studies()["study"])
            frames = [store.frame(name) for name in names]
            traces = [store.trace(name) for name in names]
        frame = pd.concat([f for f in frames if not f.empty] or frames[:1], ignore_index=True)
        trace = pd.concat([t for t in traces if not t.empty] or traces[:1], ignore_index=True)
        frame = frame[frame["status"].notna()].reset_index(drop=True)
        if frame.empty:
            scripts = {"ablation": "ablations", "tiny": "sweeps", "radius": "sweeps"}
            own = ("images", "branching", "relaxations", "monotonicity", "solver_swap")
            script = "reproduce"
            if len(studies) == 1:
                script = studies[0] if studies[0] in own else scripts.get(studies[0].split("_")[0], script)
            raise LipcompareError(
                f"{settings.store} has no rows of {', '.join(studies) or 'any study'}: run python -m experiments."
                f"{script} first."
            )
        return cls(frame, trace)


Draw = Callable[[Settings], Iterable[Path]]


def main(draw: Draw, about: str | None, arguments: Sequence[str] | None = None) -> int:
    """Draw from a store; 2 if there is nothing to draw from."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=STORE, help="results store (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pictures (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        written = [str(path) for path in draw(Settings(chosen.store, chosen.out))]
    except LipcompareError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print("Written: " + ", ".join(written))
    return 0


def save(figure: Figure, settings: Settings, name: str) -> list[Path]:
    """A picture in every format of the settings."""
    settings.out.mkdir(parents=True, exist_ok=True)
    paths = [settings.out / f"{name}.{ending}" for ending in settings.formats]
    for path in paths:
        date = {"Date": None} if path.suffix == ".svg" else {"CreationDate": None} if path.suffix == ".pdf" else {}
        figure.savefig(path, dpi=200, metadata=date)  # without dates equal data give equal files
    return paths


def save_table(table: Table, settings: Settings, name: str) -> list[Path]:
    """A table as LaTeX, Markdown and CSV."""
    return table.save(settings.out, name)
