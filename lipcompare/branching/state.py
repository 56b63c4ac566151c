"""A search on disk: plain arrays in one npz file, replaced as a whole, so that a killed run breaks nothing."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

import numpy as np

from lipcompare.branching.driver import Found, Search
from lipcompare.branching.tree import Queue, Subdomain
from lipcompare.errors import InvalidInput
from lipcompare.fingerprint import Fingerprints
from lipcompare.problem import Problem

_VERSION = 2


def fingerprint(problem: Problem) -> str:
    """A hash of the question, so that a state is resumed for no other."""
    return Fingerprints().of(problem.network, problem.box, problem.functionals, problem.norm)


def save(search: Search, path: Path, key: str) -> None:
    """Write the whole state; a crash in between leaves the file that was there."""
    pending = Queue(search.queue.rows)
    for node in search.waiting:
        pending.push(node)
    rows = sorted(search.witnesses)
    found = [search.witnesses[row] for row in rows]
    arrays = {
        **search.queue.to_arrays(),
        **{f"waiting_{name}": array for name, array in pending.to_arrays().items()},
        "lower": search.lower,
        "closed": search.closed,
        "nodes": np.array(search.nodes),
        "found_row": np.array(rows, dtype=np.int64),
        "found_value": np.array([f.value for f in found]),
        "found_point": np.array([f.point for f in found]),
        "found_slopes": np.array([f.slopes for f in found]),
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
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if int(arrays["version"]) != _VERSION:
            raise InvalidInput(f"{path} was written by another version: delete it to start over.")
        if str(arrays["key"]) != key:
            raise InvalidInput(f"{path} belongs to another problem: give another path or delete it.")
        rows = len(arrays["lower"])
        search = Search(Queue.from_arrays(rows, arrays), arrays["lower"], arrays["closed"], {}, int(arrays["nodes"]))
        pending = {n.removeprefix("waiting_"): a for n, a in arrays.items() if n.startswith("waiting_")}
        columns = (arrays["found_row"], arrays["found_value"], arrays["found_point"], arrays["found_slopes"])
    except InvalidInput:
        raise
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise InvalidInput(f"{path} is not a saved search: delete it to start over.") from error
    for row, value, point, slopes in zip(*columns, strict=True):
        search.witnesses[int(row)] = Found(int(row), float(value), point, slopes)
    waiting = Queue.from_arrays(rows, pending)
    nodes: list[Subdomain] = []
    while len(waiting):
        nodes.append(waiting.peek())
        waiting.pop()
    search.waiting = nodes
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
