"""Cells on a Dask cluster. Each Dask worker keeps a process of its own for them, so that no cell can take it down."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

from lipcompare.errors import InvalidInput
from lipcompare.network.graph import Network
from lipcompare.result import Status
from lipcompare.store.database import Record
from lipcompare.study.definition import Cell
from lipcompare.study.lanes import Finished, Lanes
from lipcompare.study.process import CellProcess, WorkerError
from lipcompare.study.record import without_result

_CONNECT = 30.0

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
            raise InvalidInput("--cluster needs Dask: pip install distributed.") from None
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
        self._cells = {f"lipcompare-{cell.key}": cell for cell in cells}
        self._networks = networks
        self._futures: list[Any] = []

    def results(self, done: Callable[[], set[str]]) -> Iterator[Finished]:
        wanted = dict.fromkeys(cell.network_hash for cell in self._cells.values())
        held = {h: self._client.submit(keep, self._networks[h], key=f"lipcompare-network-{h}") for h in wanted}
        self._futures = [
            self._client.submit(
                run_isolated,
                cell,
                held[cell.network_hash],
                key=key,
                resources={"GPU": 1} if cell.device == "cuda" else None,
                priority=-position,
            )
            for position, (key, cell) in enumerate(self._cells.items())
        ]
        for future in self._completed(self._futures, loop=self._client.loop):
            cell = self._cells[future.key]
            # Waits for a result that its worker took along as it went, which is computed again.
            error = future.exception()
            if future.status == "cancelled":
                raise WorkerError("The scheduler gave the study up, as when it is started anew: run again to go on.")
            if error is None:
                yield cell, future.result()
            else:
                detail = f"On the cluster: {type(error).__name__}: {error}"
                yield cell, without_result(cell, Status.CRASHED, detail)

    def stop(self) -> list[Finished]:
        self._client.cancel(self._futures, force=True)
        self._client.close()
        return []
