"""A search on disk: plain arrays in one npz file, replaced as a whole, so that a killed run breaks nothing."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

import numpy as np

from lipcompare.branching.driver import Search
from lipcompare.branching.tree import Group, Queue
from lipcompare.errors import InvalidInput
from lipcompare.fingerprint import Fingerprints
from lipcompare.problem import Problem
from lipcompare.result import Attained, Witness

_VERSION = 5


def fingerprint(problem: Problem) -> str:
    """A hash of the question, so that a state is resumed for no other."""
    return Fingerprints().of(problem.network, problem.box, problem.functionals, problem.norm)


def save(search: Search, path: Path, key: str) -> None:
    """Write the whole state; a crash in between leaves the file that was there."""
    pending = Queue(search.queue.rows)
    for group in search.waiting:
        pending.push(group)
    witnesses = [witness for _, witness in sorted(search.attained.witnesses.items())]
    bent = [w for w in witnesses if w.slopes is not None]
    arrays = {
        **search.queue.to_arrays(),
        **{f"waiting_{name}": array for name, array in pending.to_arrays().items()},
        "closed": search.closed,
        "nodes": np.array(search.nodes),
        "witness_row": np.array([w.row for w in witnesses], dtype=np.int64),
        "witness_value": np.array([w.value for w in witnesses]),
        "witness_point": np.array([w.point for w in witnesses]),
        "kink_row": np.array([w.row for w in bent], dtype=np.int64),
        "kink_slopes": np.array([w.slopes for w in bent]),
        "key": np.array(key),
        "version": np.array(_VERSION),
    }
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path, key: str) -> Search:
    """The state that :func:`save` wrote.

    Raises:
        InvalidInput: the file is no such state, or of another problem.
    """
    try:
        # Opened here, since numpy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        if int(arrays["version"]) != _VERSION:
            raise InvalidInput(f"{path} was written by another version: delete it to start over.")
        if str(arrays["key"]) != key:
            raise InvalidInput(f"{path} belongs to another problem: give another path or delete it.")
        rows = len(arrays["closed"])
        slopes = dict(zip(arrays["kink_row"].tolist(), arrays["kink_slopes"], strict=True))
        columns = (arrays["witness_row"].tolist(), arrays["witness_value"].tolist(), arrays["witness_point"])
        witnesses = [Witness(row, value, point, slopes.get(row)) for row, value, point in zip(*columns, strict=True)]
        search = Search(
            queue=Queue.from_arrays(rows, arrays),
            attained=Attained(rows, witnesses),
            closed=arrays["closed"],
            nodes=int(arrays["nodes"]),
        )
        pending = {n.removeprefix("waiting_"): a for n, a in arrays.items() if n.startswith("waiting_")}
    except InvalidInput:
        raise
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise InvalidInput(f"{path} is not a saved search: delete it to start over.") from error
    waiting = Queue.from_arrays(rows, pending)
    groups: list[Group] = []
    while len(waiting):
        groups.append(waiting.peek())
        waiting.pop()
    search.waiting = groups
    return search


class Checkpoint:
    """Saves a search every so often; called between batches."""

    def __init__(self, path: Path, key: str, every: float = 20.0) -> None:
        self.path, self.key, self.every = path, key, every
        self.last = time.perf_counter()

    def __call__(self, search: Search) -> None:
        """Save if the last time is long enough ago."""
        if time.perf_counter() - self.last >= self.every:
            save(search, self.path, self.key)
            self.last = time.perf_counter()
