"""What the study's scripts share: their command line, the methods under their names in the paper, trained networks.

Every script takes the same options, writes to the same results store, computes only what the store lacks and can be
killed at any time: run it again to go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

import lipcompare
from experiments.data import Dataset, dataset
from experiments.train import CACHE, Protocol, trained
from lipcompare import Network
from lipcompare.errors import InvalidInput, LipcompareError, nearest
from lipcompare.store.database import Store
from lipcompare.study.run import CellLimits, Setting, Study, run

STORE = Path("results") / "results.sqlite"

PAPER = (
    Setting("naive", series="NaiveUB"),
    Setting("ibp", series="IBP"),
    Setting("recurjac", series="RecurJac"),
    Setting("lp", series="LipLP"),
    Setting("lipsdp", series="LipSDP"),
    Setting("milp", series="LipMIP"),
    Setting("lipbab", series="LipBaB"),
    Setting("lbp", series="paper"),
    Setting("bab", {"bound": "lbp", "heuristic": "area", "schedule": "classes"}, series="paper, BaB"),
)
"""What the paper compares; ``paper`` is the bound it proposes."""

OURS = (Setting("sdp", series="sdp"), Setting("bab", series="bab"), Setting("attack", series="attack"))
"""What this package adds: the quadratic-gate bound, branch and bound on it, and checked lower bounds."""

EVERYTHING = (*PAPER, *OURS)

EXACT = ("LipMIP", "LipBaB")
EXACT_SECONDS, BAB_SECONDS = 1000.0, 60.0
"""The paper's limits for LipMIP and LipBaB, and for branch and bound."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the user asked for.

    Attributes:
        full: the sizes and limits of the paper, not the reduced ones.
        seconds: time limit per cell; 0 takes the script's own.
        exact_seconds: time limit per cell of LipMIP and LipBaB; 0 takes the paper's in a full run without ``seconds``,
            else that of the others.
        methods: series or methods to run; empty for all.
        examples: test examples per data set; 0 takes the script's own.
        radii: of the boxes, such as ``8/255``, for the experiments on images; empty for the script's own.
        reference: folder of the trained reference networks, for the experiments that make random ones otherwise.
    """

    store: Path = STORE
    full: bool = False
    seconds: float = 0.0
    exact_seconds: float = 0.0
    methods: tuple[str, ...] = ()
    examples: int = 0
    data_root: str | None = None
    cache: Path = CACHE
    device: str = "cpu"
    seed: int = 0
    clip: bool = False
    reference: Path | None = None
    radii: tuple[str, ...] = ()

    def limits(self, reduced: float, full: float = BAB_SECONDS) -> CellLimits:
        """The limits of a cell: ``reduced`` or ``full`` seconds unless the user said otherwise."""
        return CellLimits(time=self.seconds or (full if self.full else reduced), seed=self.seed)

    def settings(self, of: Sequence[Setting]) -> list[Setting]:
        """The chosen ones, the exact methods of the paper with a limit of their own."""
        chosen = [s for s in of if not self.methods or {s.label, s.method} & set(self.methods)]
        seconds = self.exact_seconds or (EXACT_SECONDS if self.full and not self.seconds else 0.0)
        if not seconds:
            return chosen
        return [dataclasses.replace(s, time=seconds) if s.label in EXACT else s for s in chosen]

    def count(self, reduced: int, full: int) -> int:
        """How many test examples."""
        return self.examples or (full if self.full else reduced)

    def network(self, name: str, console: Console | None = None) -> tuple[Network, Dataset, float]:
        """A trained network with its data and test accuracy; from the cache, or trained now, as the console tells."""
        # The digits are so few that the paper's ten epochs of large batches are hardly any steps.
        protocol = Protocol(epochs=60, batch=64, seed=self.seed) if name == "digits_mlp" else Protocol(seed=self.seed)
        device = self.device if torch.cuda.is_available() else "cpu"  # the cells may run on other machines than this
        done = trained(name, protocol, data_root=self.data_root, cache=self.cache, device=device,
                       on_epoch=None if console is None else console.print)  # fmt: skip
        network = lipcompare.load(done.module, input_shape=done.model.input_shape, name=name)
        return network, dataset(done.model.data, self.data_root), done.accuracy


Build = Callable[..., Sequence[Study]]
"""Makes studies from the choices and a console, and from the names of those that are wanted where it has several."""


def main(build: Build, about: str | None, arguments: Sequence[str] | None = None, *, names: Sequence[str] = ()) -> int:
    """Run the studies that ``build`` makes from the command line's choices; the exit code.

    Args:
        names: of studies among which the command line may choose.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if names:
        parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    add_options(parser)
    given = parser.parse_args(arguments)
    if names:
        unknown = [name for name in given.names if name not in names]
        if unknown:
            print(f"Error: Unknown study {unknown[0]!r}.{nearest(unknown[0], names)}", file=sys.stderr)
            return 2
        build = partial(build, names=given.names or names)
    return guarded(lambda: 130 if compute(build, choices(given), given, progress_console()) else 0)


def progress_console() -> Console:
    """On stderr, 120 columns wide where that is no terminal."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else 120, highlight=False)


def guarded(work: Callable[[], int]) -> int:
    """The exit code of ``work``; 2 with one sentence for an expected failure, 130 for Ctrl-C."""
    try:
        return work()
    except LipcompareError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: run again to go on.", file=sys.stderr)
        return 130


def compute(build: Build, chosen: Choices, given: argparse.Namespace, console: Console) -> bool:
    """Train what is missing, run the cells that the store lacks; whether it was interrupted."""
    studies = build(chosen, console)
    if given.again and chosen.store.exists():
        names = tuple(sorted({s.name for s in studies}))
        with Store(chosen.store) as store:
            rows = store.frame()
            old = rows[
                rows["study"].isin(names) & (rows["method"].isin(given.again) | rows["series"].isin(given.again))
            ]
            console.print(f"{', '.join(names)}: {store.forget(old['key'])} cells of {', '.join(given.again)} forgotten")
    summary = run(
        studies,
        chosen.store,
        jobs=given.jobs,
        cluster=given.cluster,
        certificates=given.certificates,
        console=console,
    )
    console.print(f"{', '.join(dict.fromkeys(s.name for s in studies))}: {summary} Rows are in {chosen.store}.")
    return summary.interrupted


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all scripts of the study share."""
    default = Choices()
    parser.add_argument("--store", type=Path, default=default.store, help="results store (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help="the paper's sizes and limits: hours (default: minutes)")
    parser.add_argument("--time-limit", type=float, default=0.0, help="seconds per cell, instead of the script's own")
    parser.add_argument(
        "--exact-time-limit",
        type=float,
        default=0.0,
        help="seconds per cell of LipMIP and LipBaB (default with --full: 1000)",
    )
    parser.add_argument("--methods", default="", help="methods or series separated by semicolons (default: all)")
    parser.add_argument("--examples", type=int, default=0, help="test examples per data set")
    parser.add_argument(
        "--again",
        action="append",
        metavar="METHOD",
        help="compute this method's cells again (a single cell: lipcompare results --forget)",
    )
    parser.add_argument("--data-root", help="folder with the data (default: $LIPCOMPARE_DATA, else data)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for trained models (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where cells run: cpu or cuda (default: %(default)s)")
    parser.add_argument("--clip", action="store_true", help="cut boxes around images with the range of pixels")
    parser.add_argument("--reference", type=Path, help="folder of the reference networks (default: random ones)")
    parser.add_argument("--eps", default="", help="radii of boxes around images, such as 2/255,8/255")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, on one thread each (default: 1)")
    parser.add_argument(
        "--certificates", action="store_true", help="write a proof of every result into the folder STORE.certificates"
    )
    parser.add_argument("--cluster", help="address of a Dask scheduler, such as tcp://host:8786: run the cells there")


def choices(given: argparse.Namespace) -> Choices:
    """The parsed options as :class:`Choices`."""
    if min(given.examples, given.time_limit, given.exact_time_limit) < 0:
        raise InvalidInput("--examples, --time-limit and --exact-time-limit cannot be negative.")
    methods = tuple(name.strip() for name in given.methods.split(";") if name.strip())
    return Choices(
        store=given.store, full=given.full, seconds=given.time_limit,
        exact_seconds=given.exact_time_limit, methods=methods, examples=given.examples,
        data_root=given.data_root, cache=given.cache, device=given.device, seed=given.seed, clip=given.clip,
        reference=given.reference, radii=tuple(filter(None, map(str.strip, given.eps.split(",")))),
    )  # fmt: skip


def each(items: Mapping[str, int], chosen: Choices) -> Iterator[tuple[int, Network, float]]:
    """The size, the network and the accuracy of each named model."""
    for name, size in items.items():
        network, _, accuracy = chosen.network(name)
        yield size, network, accuracy
