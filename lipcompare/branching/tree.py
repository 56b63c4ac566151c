"""Open subdomains, stored as small as they can be: the decisions that lead there, a bound, and how to split further."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_BYTES_EACH = 440
"""Memory of one open subdomain without its decisions: the tuple in the heap, its numbers and three byte strings."""


@dataclasses.dataclass(frozen=True)
class Subdomain:
    """A part of one row's domain.

    Attributes:
        upper: certified bound on the row's value there.
        row: the functional.
        decisions: what restricts it, in the order in which it was decided.
        chain: decisions ``d1, ..., dm`` to split along; children: ``not d1``; ``d1, not d2``; ...; ``d1, ..., dm``.
        closed: the last of these children is known to be empty.
        inherited: what the evaluator remembers of it for its children, in a form of its own.
    """

    upper: float
    row: int
    decisions: tuple[int, ...] = ()
    chain: tuple[int, ...] = ()
    closed: bool = False
    inherited: bytes = b""

    def children(self) -> Iterator[Subdomain]:
        """What covers it, with its own bound for the time being."""
        for m, last in enumerate(self.chain):
            yield self._child((*self.chain[:m], last ^ 1))
        if not self.closed:
            yield self._child(self.chain)

    def _child(self, chain: tuple[int, ...]) -> Subdomain:
        return Subdomain(self.upper, self.row, (*self.decisions, *chain), inherited=self.inherited)


class Queue:
    """Open subdomains, those with the largest bound first; equal bounds in the order in which they came."""

    def __init__(self, rows: int) -> None:
        self._heap: list[tuple[float, int, int, bytes, bytes, bool, bytes]] = []
        self._pushed = 0
        self._packed = 0
        self.rows = rows

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def upper(self) -> float:
        """The largest bound, 0 without any."""
        return -self._heap[0][0] if self._heap else 0.0

    @property
    def bytes(self) -> int:
        """Memory that the open subdomains take, approximately."""
        return len(self._heap) * _BYTES_EACH + self._packed

    def push(self, node: Subdomain) -> None:
        made, chain = _pack(node.decisions), _pack(node.chain)
        self._packed += len(made) + len(chain) + len(node.inherited)
        self._pushed += 1
        heapq.heappush(self._heap, (-node.upper, self._pushed, node.row, made, chain, node.closed, node.inherited))

    def peek(self) -> Subdomain:
        """The next one to come out."""
        upper, _, row, made, chain, closed, inherited = self._heap[0]
        return Subdomain(
            upper=-upper,
            row=row,
            decisions=_unpack(made),
            chain=_unpack(chain),
            closed=closed,
            inherited=inherited,
        )

    def pop(self) -> None:
        """Drop the next one."""
        entry = heapq.heappop(self._heap)
        self._packed -= len(entry[3]) + len(entry[4]) + len(entry[6])

    def row_upper(self) -> np.ndarray:
        """Largest bound of the open subdomains of each row, (rows,); 0 without any."""
        upper = np.zeros(self.rows)
        for entry in self._heap:
            upper[entry[2]] = max(upper[entry[2]], -entry[0])
        return upper

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as plain arrays."""
        entries = sorted(self._heap)
        return {
            "queue_upper": np.array([-e[0] for e in entries], dtype=np.float64),
            "queue_row": np.array([e[2] for e in entries], dtype=np.int32),
            "queue_closed": np.array([e[5] for e in entries], dtype=bool),
            "queue_decisions": np.frombuffer(b"".join(e[3] for e in entries), dtype=np.int32),
            "queue_decisions_length": np.array([len(e[3]) // 4 for e in entries], dtype=np.int32),
            "queue_chain": np.frombuffer(b"".join(e[4] for e in entries), dtype=np.int32),
            "queue_chain_length": np.array([len(e[4]) // 4 for e in entries], dtype=np.int32),
            "queue_inherited": np.frombuffer(b"".join(e[6] for e in entries), dtype=np.uint8),
            "queue_inherited_length": np.array([len(e[6]) for e in entries], dtype=np.int32),
        }

    @classmethod
    def from_arrays(cls, rows: int, arrays: dict[str, np.ndarray]) -> Queue:
        """The inverse of :meth:`to_arrays`."""
        queue = cls(rows)
        made = _pieces(arrays["queue_decisions"], arrays["queue_decisions_length"])
        chains = _pieces(arrays["queue_chain"], arrays["queue_chain_length"])
        inherited = _pieces(arrays["queue_inherited"], arrays["queue_inherited_length"])
        columns = (arrays["queue_upper"].tolist(), arrays["queue_row"].tolist(), arrays["queue_closed"].tolist())
        for upper, row, closed, decisions, chain, memory in zip(*columns, made, chains, inherited, strict=True):
            queue.push(
                Subdomain(
                    upper=upper,
                    row=row,
                    decisions=tuple(decisions.tolist()),
                    chain=tuple(chain.tolist()),
                    closed=closed,
                    inherited=memory.tobytes(),
                )
            )
        return queue


def _pack(numbers: Sequence[int]) -> bytes:
    return np.asarray(numbers, dtype=np.int32).tobytes()


def _unpack(packed: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(packed, dtype=np.int32).tolist())


def _pieces(flat: np.ndarray, lengths: np.ndarray) -> Iterable[np.ndarray]:
    stops = np.cumsum(lengths)
    for start, stop in zip(stops - lengths, stops, strict=True):
        yield flat[start:stop]
