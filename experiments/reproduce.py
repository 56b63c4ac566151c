"""The whole study: every experiment into one results store, resumable at any point.

python -m experiments.reproduce --jobs 2
python -m experiments.reproduce --full --jobs 8 --data-root ../shared/data --store results/full/results.sqlite

By default at reduced sizes, in minutes and without any file; --full takes the paper's sizes and limits, hours.
``make reproduce`` and ``make reproduce-full`` draw the figures and write the report afterwards.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments import ablations, images, study, sweeps
from lipcompare.study.run import Study

PARTS = (sweeps, ablations, images)


@dataclasses.dataclass(frozen=True)
class Script:
    """An experiment that writes a CSV file of its own, with its options for a reduced and for a full run.

    Attributes:
        trains: takes the folders of data and of trained models.
    """

    name: str
    reduced: tuple[str, ...]
    full: tuple[str, ...]
    trains: bool = False

    def command(self, given: argparse.Namespace, out: Path) -> list[str]:
        """How to run it."""
        options = [*(self.full if given.full else self.reduced), "--out", str(out)]
        if self.trains:
            options += ["--cache", str(given.cache), *(["--data-root", given.data_root] if given.data_root else [])]
        return [sys.executable, "-m", f"experiments.{self.name}", *options]


SCRIPTS = (
    Script("monotonicity", ("--synthetic", "--examples", "20"), ("--examples", "200"), trains=True),
    Script("relaxations", ("--random", "--time-limit", "2", "--cuts", "200", "--exact", "1"), ()),
    Script("branching", ("--time-limit", "4"), ("--time-limit", "60")),
    Script("solver_swap", ("--time-limit", "2"), ("--time-limit", "60")),
)


def everything(chosen: study.Choices, console: Console) -> Sequence[Study]:
    """All studies; cells that several share are computed once."""
    return [made for part in PARTS for made in part.studies(chosen, console)]


def run_scripts(scripts: Sequence[Script], given: argparse.Namespace, console: Console) -> int:
    """Run those whose file is not there, each in a process of its own; the first exit code that is not 0.

    A file has its name only when it is complete: Ctrl-C reaches this process too, whatever the script makes of it.
    """
    for script in scripts:
        out: Path = given.store.parent / f"{script.name}.csv"
        if out.exists():
            console.print(f"{script.name}: {out} is there; delete it to compute it again.")
            continue
        console.print(f"{script.name}: running, some minutes at most unless --full is given.")
        part = out.with_suffix(".part.csv")
        if code := subprocess.run(script.command(given, part), check=False).returncode:  # noqa: S603  # our own
            return code
        part.rename(out)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the store and the folder lack; 130 if it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    study.add_options(parser)
    given = parser.parse_args(arguments)
    console = study.progress_console()

    def work() -> int:
        if study.compute(everything, study.choices(given), given, console):
            return 130
        return run_scripts(SCRIPTS, given, console)

    return study.guarded(work)


if __name__ == "__main__":
    sys.exit(main())
