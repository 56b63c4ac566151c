"""What a study found, as a folder that is published: the rows, every figure and table, and a page in words.

python -m figures.record --store results/full/results.sqlite --out docs/results

``rows.csv`` has every cell with its provenance, ``trace.csv`` what it said on the way, ``figures/`` the pictures (SVG,
PNG) and tables (LaTeX, Markdown, CSV), ``index.md`` the paper's claims with the numbers for and against them. The
folder is made anew: nothing old stays in it. Figures whose results are missing are named on the page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from figures.claims import Claim, claims
from figures.everything import DRAWS
from figures.style import STORE, Settings
from lipcompare.budget import duration
from lipcompare.display.style import ordered
from lipcompare.errors import InvalidInput, LipcompareError
from lipcompare.report.facts import CUT_SHORT
from lipcompare.store import export
from lipcompare.store.database import Store

OUT = Path("docs") / "results"
FORMATS = ("svg", "png")
MARK = "<!-- Made by python -m figures.record: change nothing here. -->"
"""The first line of the page, by which the folder of an earlier record is known."""


def write_record(store: Path, out: Path, note: str = "") -> list[str]:
    """Make the folder; the names of the figures whose results are missing.

    Args:
        note: what a reader has to know of how the study was run, for the top of the page.

    Raises:
        InvalidInput: ``out`` is something else, or the store lies in it or has no finished cell.
        StoreError: the store cannot be read.
    """
    with Store(store, read_only=True) as opened:
        frame, trace = opened.frame(), opened.trace()
    done = frame[frame["status"].notna()] if not frame.empty else frame
    if done.empty:
        raise InvalidInput(f"{store} has no finished cell: run python -m experiments.reproduce first.")
    _require_record(out, store)
    made = out.with_name(out.name + ".partial")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        missing = _fill(made, store, frame, trace, done, note)
    except BaseException:
        shutil.rmtree(made)
        raise
    if out.exists():
        shutil.rmtree(out)
    made.rename(out)
    return missing


def _require_record(out: Path, store: Path) -> None:
    """Raises InvalidInput unless the folder is an earlier record, empty, or not there: it is removed with all in it."""
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"{out} is a file: give --out a folder.")
    page = out / "index.md"
    earlier = page.is_file() and page.read_text(encoding="utf-8").startswith(MARK)
    if out.exists() and any(out.iterdir()) and not earlier:
        raise InvalidInput(f"{out} is not empty, and what is in it was not made by python -m figures.record.")
    if store.resolve().is_relative_to(out.resolve()):
        raise InvalidInput(f"{store} lies in {out}, which is made anew: keep the store elsewhere.")


def _fill(out: Path, store: Path, frame: pd.DataFrame, trace: pd.DataFrame, done: pd.DataFrame, note: str) -> list[str]:
    export.write(frame, out / "rows.csv")
    export.write(trace, out / "trace.csv")
    drawn: dict[str, list[Path]] = {}
    missing: dict[str, str] = {}
    for name, draw in DRAWS.items():
        try:
            drawn[name] = list(draw(Settings(store, out / "figures", FORMATS)))
        except LipcompareError as error:
            missing[name] = str(error).replace(str(store), "the store")  # the page is the same wherever it is made
    cells, finished = (rows.drop_duplicates("key") for rows in (frame, done))  # some are in two studies
    text = "\n\n".join(_page(cells, finished, claims(done), drawn, missing, note)) + "\n"
    (out / "index.md").write_text(text, encoding="utf-8")
    return list(missing)


def _page(
    frame: pd.DataFrame,
    done: pd.DataFrame,
    found: Sequence[Claim],
    drawn: Mapping[str, Sequence[Path]],
    missing: Mapping[str, str],
    note: str,
) -> Iterator[str]:
    """The paragraphs of the page."""
    yield MARK
    yield "# What the study found"
    yield (
        f"{len(done)} of {len(frame)} cells are finished, of {done['problem_hash'].nunique()} problems; "
        f"{duration(float(done['seconds'].sum()))} of computing. Every number here is computed from "
        "[the rows](rows.csv) (every cell with its options, limits, versions and machine) and "
        "[traces](trace.csv) by `python -m figures.record`; [the study](../study.md) says how they are made again."
    )
    yield "\n".join(_origins(done))
    if note:
        yield note
    yield "## Claims"
    yield "\n".join(
        ["| claim | |", "| --- | --- |", *(f"| {claim.text} | **{claim.verdict.value}** |" for claim in found)]
    )
    for claim in found:
        yield f"### {claim.text}"
        yield f"**{claim.verdict.value.capitalize()}.**"
        yield "\n".join(f"- {sentence}" for sentence in claim.sentences)
    yield "## How the cells ended"
    yield _endings(done)
    yield "## Figures and tables"
    yield (
        "Each picture's title says what it shows; each is also a PNG, each table also LaTeX and CSV, in `figures/`. "
        "† and rings mark what was cut short."
    )
    for name, paths in drawn.items():
        yield f"### {name}"
        for path in paths:
            if path.suffix == ".svg":
                yield f"![{path.stem.replace('_', ' ')}](figures/{path.name})"
            elif path.suffix == ".md":
                yield path.read_text(encoding="utf-8").strip()
    if missing:
        yield "## Not here"
        yield "\n".join(f"- `{name}`: {why}" for name, why in missing.items())


def _origins(done: pd.DataFrame) -> Iterator[str]:
    """A line per machine and set of versions."""
    columns = ["platform", "cpu", "gpu", "device", "threads", "versions", "revision"]
    for key, rows in done.groupby(columns, sort=False):
        platform, cpu, gpu, device, threads, versions, revision = key
        packages = ", ".join(f"{name} {version}" for name, version in json.loads(str(versions)).items())
        where = f"{cpu}{', ' + str(gpu) if gpu else ''}"
        threads = f"{threads:g} thread{'' if threads == 1 else 's'}"
        yield (
            f"- {len(rows)} cells on {where} ({platform}), device {device}, {threads}, commit "
            f"`{str(revision)[:12] or 'unknown'}`: {packages}."
        )


def _endings(done: pd.DataFrame) -> str:
    """A table of statuses per series."""
    counts = pd.crosstab(done["series"], done["status"]).loc[ordered(list(done["series"]))]
    heads = [str(status).replace("_", " ") + ("†" if status in CUT_SHORT else "") for status in counts.columns]
    lines = ["| method | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    lines += ["| " + " | ".join([str(name), *map(str, row)]) + " |" for name, row in counts.iterrows()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the record; 1 if results of some figures were missing, 2 if there is none to write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=STORE, help="results store (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the record (default: %(default)s)")
    parser.add_argument(
        "--note", default="", help="what a reader has to know of how it was run, for the top of the page"
    )
    chosen = parser.parse_args(arguments)
    try:
        missing = write_record(chosen.store, chosen.out, chosen.note)
    except LipcompareError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"The record is in {chosen.out}." + (f" Missing: {', '.join(missing)}." if missing else ""))
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
