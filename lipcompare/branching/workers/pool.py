"""The search's end: starts processes, and shares every batch of subdomains among them and itself."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
import pickle
import queue
import tempfile
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Self

from lipcompare.branching.driver import Assessment
from lipcompare.branching.tree import Group, Subdomain, groups_of
from lipcompare.branching.workers.serve import Answer, Made, Portable, Ready, Request
from lipcompare.budget import counted
from lipcompare.network.environment import computing
from lipcompare.processes.spawning import close, last_words, spawn

_LOG = logging.getLogger("lipcompare")

_AFTER = 0.5
"""Seconds of a search before it is worth more processes: most end sooner."""
_LEAST = 5.0
"""Seconds that must be left: a process needs two or three to import what it takes."""
_LATE = 0.5
"""Seconds after the end of the time for which answers are waited for: evaluators keep to it only roughly."""


class Worker:
    """One process, and the thread that listens to it.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
        try:
            self._process = spawn("lipcompare.branching.workers.serve", 1, self._errors)
        except OSError:
            self._errors.close()
            raise
        self._heard: queue.Queue[Ready | Answer | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._known: set[tuple[int, int]] = set()
        self.ready, self.ended = False, False

    def look(self) -> None:
        """See whether it has started, or ended, since the last look."""
        if not self.ready and not self.ended:
            with contextlib.suppress(queue.Empty):
                self.ready = isinstance(self._heard.get_nowait(), Ready)
                self.ended = not self.ready

    def ask(self, request: Request) -> None:
        """Send subdomains; their evaluator goes along the first time."""
        if request.key in self._known:
            request = request._replace(made=None)
        # As the process does with those of earlier examples.
        self._known = {request.key, *(key for key in self._known if key[0] == request.key[0])}
        # By a thread, as a process that does not read would keep the writer past every limit.
        threading.Thread(target=self._write, args=(request,), daemon=True).start()

    def answer(self, seconds: float) -> Answer | None:
        """What it says within so many seconds; None if it ends, or says nothing, and then it is ended."""
        try:
            said = self._heard.get(timeout=None if math.isinf(seconds) else max(seconds, 0.0))
        except queue.Empty:
            said = None
        if isinstance(said, Answer):
            return said
        self.ended = True
        return None

    def last_words(self) -> str:
        return last_words(self._errors)

    def close(self) -> None:
        """End it."""
        close(self._process)
        self._errors.close()

    def _write(self, request: Request) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # a process that has ended is noticed by who listens
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()

    def _listen(self) -> None:
        """Hand on what it says; None when it has ended."""
        assert self._process.stdout is not None
        while True:
            try:
                message = pickle.load(self._process.stdout)  # noqa: S301  # from a process that this one started
            except Exception:  # noqa: BLE001  # damaged pickles raise anything; the search does that part itself
                self._heard.put(None)
                return
            self._heard.put(message)


@dataclasses.dataclass(eq=False)
class Workers:
    """Processes beside the search, started once it has lasted; a context, which ends them.

    Attributes:
        count: how many.
    """

    count: int

    def __post_init__(self) -> None:
        self._begun = time.perf_counter()
        self._keys = itertools.count()
        self._workers: list[Worker] = []
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close()

    def beside(self, evaluator: Portable, example: int) -> SideBySide:
        """The same evaluator, on all of them; those of earlier examples are not to be used any more."""
        return SideBySide(evaluator, self, (example, next(self._keys)))

    def ready(self, left: float) -> tuple[list[Worker], int]:
        """Those that take work, and how many more are about to.

        Args:
            left: seconds of the search.
        """
        if not self._started and time.perf_counter() - self._begun > _AFTER and left > _LEAST:
            self._started = True
            self._start()
        for worker in self._workers:
            worker.look()
        self._bury()
        ready = [worker for worker in self._workers if worker.ready]
        return ready, len(self._workers) - len(ready)

    def _start(self) -> None:
        try:
            for _ in range(self.count):
                self._workers.append(Worker())
        except OSError as error:
            _LOG.warning("The search has %s beside it: %s.", counted(len(self._workers), "process"), error)

    def _bury(self) -> None:
        """Go on without those that have ended."""
        gone = [worker for worker in self._workers if worker.ended]
        self._workers = [worker for worker in self._workers if not worker.ended]
        for worker in gone:
            words = worker.last_words() or "without a word"
            worker.close()
            rest = counted(len(self._workers), "process")
            _LOG.warning("A process beside the search has ended: %s. It goes on with %s beside it.", words, rest)


@dataclasses.dataclass(eq=False)
class SideBySide:
    """An evaluator whose batches are shared among processes; whatever becomes of these, no subdomain is lost.

    Attributes:
        evaluator: of this process.
        key: under which the others know it.
        programs: linear programs solved by all of them.
    """

    evaluator: Portable
    workers: Workers
    key: tuple[int, int]
    programs: int = 0

    def __post_init__(self) -> None:
        self._made: bytes | None = None

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> Sequence[Assessment]:
        """See :class:`~lipcompare.branching.driver.Evaluator`.

        As long as processes are about to start the first nodes alone, so that the others need not wait.
        """
        left = self.evaluator.deadline.left
        ready, coming = self.workers.ready(left)
        groups: list[Group] = groups_of(nodes) if self.evaluator.shares else [(node,) for node in nodes]
        groups = groups[: math.ceil(len(groups) * (1 + len(ready)) / (1 + len(ready) + coming))]
        asked = ready[: len(groups) - 1]
        if not asked:
            return self._here(_flat(groups), floor, target)
        # The costs of neighbours in a batch are alike.
        parts = [_flat(groups[i :: 1 + len(asked)]) for i in range(1 + len(asked))]
        if self._made is None:
            self._made = pickle.dumps(Made.of(self.evaluator))
        for worker, part in zip(asked, parts[1:], strict=True):
            worker.ask(Request(self.key, self._made, part, floor, target, left))
        done = [self._here(parts[0], floor, target)]
        answers = [worker.answer(self.evaluator.deadline.left + _LATE) for worker in asked]
        for part, answer in zip(parts[1:], answers, strict=True):
            if answer is not None:
                self.programs += answer.programs
                done.append(answer.assessments)
            else:
                done.append([] if self.evaluator.deadline.passed() else self._here(part, floor, target))
        return _in_order(done, [len(group) for group in groups])

    def _here(self, nodes: Sequence[Subdomain], floor: float, target: float) -> Sequence[Assessment]:
        before = self.evaluator.programs
        # Threads of torch would wait for processors that the other processes have.
        with computing(threads=1):
            assessments = self.evaluator.evaluate(nodes, floor, target)
        self.programs += self.evaluator.programs - before
        return assessments


def _flat(groups: Sequence[Group]) -> list[Subdomain]:
    return [node for group in groups for node in group]


def _in_order(parts: Sequence[Sequence[Assessment]], sizes: Sequence[int]) -> list[Assessment]:
    """The first assessments of groups of these sizes that were dealt out in turn, as far as there is none missing."""
    first: list[Assessment] = []
    places = [0] * len(parts)
    for k, size in enumerate(sizes):
        number = k % len(parts)
        said = parts[number][places[number] : places[number] + size]
        places[number] += size
        first += said
        if len(said) < size:
            break
    return first
