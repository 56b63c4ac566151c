"""Run studies: every cell in a process of its own, every finished cell kept at once, unfinished ones run the next time.

>>> study = Study("mine", [Task(problem, {"model": "mnist_mlp", "eps": 0.1})], [Setting("lbp"), Setting("sdp")])
>>> run([study], "results.sqlite")
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from lipcompare.budget import duration
from lipcompare.errors import InvalidInput
from lipcompare.store.database import Store, certificates_of
from lipcompare.store.schema import in_words
from lipcompare.study.definition import CellLimits, Setting, Study, Task, plan
from lipcompare.study.lanes import Lanes, Local
from lipcompare.study.progress import StudyProgress

__all__ = ["CellLimits", "Setting", "Study", "Summary", "Task", "run"]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        cells: of the studies, each counted once.
        before: of these, that the store had.
        ran: of these, computed now.
        statuses: how the cells that were computed now ended.
        interrupted: by Ctrl-C; the cells that are missing run the next time.
    """

    cells: int
    before: int
    ran: int
    statuses: Mapping[str, int]
    seconds: float
    interrupted: bool = False

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(self.statuses.items()))
        there = f", {self.before} were there," if self.before else ""
        text = f"{self.ran} of {self.cells} cells computed{there} in {duration(self.seconds)}"
        text += f" ({ends})" if ends else ""
        return f"{text}. Interrupted: run again to go on." if self.interrupted else f"{text}."


def run(
    studies: Sequence[Study],
    store: str | Path,
    *,
    jobs: int = 1,
    cluster: str | None = None,
    certificates: bool = False,
    console: Console | None = None,
) -> Summary:
    """Compute the cells that the store lacks.

    Args:
        studies: cells that several of them share are computed once.
        store: the SQLite file; other runners may write to it at the same time.
        jobs: cells at a time on this machine. Times are comparable only between runs of equal ``jobs``.
        cluster: address of a Dask scheduler, such as ``tcp://host:8786``: run there instead of here.
        certificates: write a proof of every result that is computed now, where there are proofs, into the folder
            ``STORE.certificates`` (docs/certificates.md). Each may take as long as its cell, beyond the cell's time.
        console: where progress is shown (default: stderr).

    Raises:
        StoreError: the store cannot be written; what was finished before is in it.
        LipcompareError: no worker process starts, or the cluster cannot be reached.
    """
    if jobs < 1:
        raise InvalidInput("jobs must be at least 1.")
    if certificates and cluster is not None:
        raise InvalidInput("Certificates are files beside the store: they are written here, not on a cluster.")
    proofs = certificates_of(store) if certificates else None
    console = console or Console(stderr=True)
    begun = time.monotonic()
    work = plan(studies)
    with Store(store) as results:
        for name, members in work.members.items():
            results.declare(name, members)
        if proofs is not None:
            with in_words(proofs):
                proofs.mkdir(exist_ok=True)
        done = results.done()
        waiting = [cell for key, cell in work.cells.items() if key not in done]
        counts: collections.Counter[str] = collections.Counter()
        if cluster is None:
            lanes: Lanes = Local(waiting, work.networks, jobs, proofs)
        else:
            from lipcompare.study.cluster import Cluster

            lanes = Cluster(waiting, work.networks, cluster)
        interrupted = False
        with StudyProgress(console, waiting, lanes=lanes.count) as progress:
            try:
                for cell, record in lanes.results(results.done):
                    if record is not None:
                        results.put(record)
                        counts[record.status] += 1
                    progress.finished(cell, record)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                leftover = lanes.stop()
            for _, record in leftover:
                if record is not None:
                    results.put(record)
                    counts[record.status] += 1
    before = len(work.cells) - len(waiting)
    return Summary(len(work.cells), before, counts.total(), counts, time.monotonic() - begun, interrupted)
