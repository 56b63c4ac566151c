"""What the figures share that read the CSV file of one experiment instead of the store: their command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from figures.style import OUT, STORE

Draw = Callable[[pd.DataFrame, Path], Iterable[Path]]


def main(
    draw: Draw, name: str, about: str | None, arguments: Sequence[str] | None = None, *, experiment: str = ""
) -> int:
    """Draw what ``python -m experiments.NAME`` (or of another name) wrote; 2 if it is not there."""
    experiment = experiment or name
    data = STORE.parent / f"{experiment}.csv"
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    if not chosen.data.exists():
        advice = f"run python -m experiments.{experiment} first, or name the file with --data."
        print(f"No {chosen.data}: {advice}", file=sys.stderr)
        return 2
    count = len(list(draw(pd.read_csv(chosen.data), chosen.out)))
    print(f"{name}: {count} files")
    return 0
