"""Cells on a Dask cluster. Each Dask worker keeps a process of its own for them, so that no cell can take it down."""

from __future__ import annotations

import collections
import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

from lipcompare.errors import InvalidInput, install
from lipcompare.network.graph import Network
from lipcompare.result import Status
from lipcompare.store.database import Record
from lipcompare.study.definition import Cell
from lipcompare.study.lanes import Finished, Lanes
from lipcompare.study.process import CellProcess, WorkerError
from lipcompare.study.record import without_result

_CONNECT = 30.0
_RESUBMISSIONS = 5
"""Times that a cell which the scheduler forgot is submitted again."""

_of_thread = threading.local()


def keep(network: Network) -> Network:
    """A network as a task of its own: the scheduler knows how to make it again when the workers that hold it go."""
    return network


def run_isolated(cell: Cell, network: Network) -> Record:
    """What a Dask worker does with a cell."""
    if not hasattr(_of_thread, "process"):
        _of_thread.process = CellProcess()
    process: CellProcess = _of_thread.process
    return process.run(cell, network)


@final
class Cluster(Lanes):
    """The workers of a Dask scheduler. Cells on an accelerator need workers with the resource ``GPU``.

    A worker that disappears loses the cell that it runs, which Dask then gives to another one.
    """

    def __init__(self, cells: Sequence[Cell], networks: Mapping[str, Network], address: str) -> None:
        try:
            distributed: Any = importlib.import_module("distributed")  # Dask's functions have no types
        except ImportError:
            raise InvalidInput(f"A cluster needs Dask: {install('cluster')}.") from None
        try:
            self._client = distributed.Client(address, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise WorkerError(f"No Dask scheduler answers at {address} ({error}).") from None
        self.count = sum(self._client.nthreads().values())
        if self.count == 0:
            self._client.close()
            raise WorkerError(
                f"The Dask scheduler at {address} has no workers: start some with `dask worker {address}`."
            )
        self._completed = distributed.as_completed
        self._cells = {cell.key: cell for cell in cells}
        self._networks = networks
        self._futures: dict[Any, Cell] = {}
        self._submitted = 0

    def results(self, done: Callable[[], set[str]]) -> Iterator[Finished]:
        held: dict[str, Any] = {}
        for position, cell in enumerate(self._cells.values()):
            self._submit(cell, -position, held)
        finishing = self._completed(list(self._futures), loop=self._client.loop)
        tries: collections.Counter[str] = collections.Counter()
        for future in finishing:
            cell = self._futures.pop(future)
            # Waits for a result that its worker took along as it went, which is computed again.
            error = future.exception()
            if future.status == "cancelled":  # the scheduler forgot it: with the workers that held its network, it may
                tries[cell.key] += 1
                if tries[cell.key] > _RESUBMISSIONS:
                    raise WorkerError(f"The scheduler gave cells up {_RESUBMISSIONS} times: run again to go on.")
                held.pop(cell.network_hash, None)
                finishing.add(self._submit(cell, 0, held))
            elif error is None:
                yield cell, future.result()
            else:
                detail = f"On the cluster: {type(error).__name__}: {error}"
                yield cell, without_result(cell, Status.CRASHED, detail)

    def _submit(self, cell: Cell, priority: int, held: dict[str, Any]) -> Any:
        """The future of a cell, whose network is a task of its own, shared with other cells."""
        self._submitted += 1
        if cell.network_hash not in held:
            key = f"lipcompare-network-{cell.network_hash}-{self._submitted}"
            held[cell.network_hash] = self._client.submit(keep, self._networks[cell.network_hash], key=key)
        future = self._client.submit(
            run_isolated,
            cell,
            held[cell.network_hash],
            key=f"lipcompare-{cell.key}-{self._submitted}",
            resources={"GPU": 1} if cell.device == "cuda" else None,
            priority=priority,
        )
        self._futures[future] = cell
        return future

    def stop(self) -> list[Finished]:
        self._client.cancel(list(self._futures), force=True)
        self._client.close()
        return []
