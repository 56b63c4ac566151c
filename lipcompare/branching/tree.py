"""Open subdomains, stored as small as they can be: the decisions that lead there, a bound, and how to split further."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_BYTES_EACH = 250
"""Memory of one group without its decisions: the tuple in the heap, its numbers and four byte strings."""
_BYTES_MORE = 130
"""What each of its subdomains adds: a tuple with two numbers and a byte string."""


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


Group = tuple[Subdomain, ...]
"""One part of the box as a subdomain of several rows: the same decisions, and the same way to split further."""


def parts_of(group: Group) -> Iterator[Group]:
    """What covers the subdomains of a group, again with all of its rows each."""
    return zip(*(node.children() for node in group), strict=True)


def groups_of(nodes: Sequence[Subdomain]) -> list[Group]:
    """The groups whose subdomains, one after another, these are."""
    return [tuple(group) for _, group in itertools.groupby(nodes, key=lambda node: node.decisions)]


_Members = tuple[tuple[float, int, bytes], ...]
"""Bound, row and memory of every subdomain of a group."""


class Queue:
    """Open subdomains in groups, those with the largest bound first; equal bounds in the order in which they came."""

    def __init__(self, rows: int) -> None:
        self._heap: list[tuple[float, int, bytes, bytes, bool, _Members]] = []
        self._pushed = 0
        self._packed = 0
        self._count = 0
        self.rows = rows

    def __len__(self) -> int:
        """How many subdomains."""
        return self._count

    @property
    def upper(self) -> float:
        """The largest bound, 0 without any."""
        return -self._heap[0][0] if self._heap else 0.0

    @property
    def bytes(self) -> int:
        """Memory that the open subdomains take, approximately."""
        return len(self._heap) * _BYTES_EACH + self._count * _BYTES_MORE + self._packed

    def push(self, group: Group) -> None:
        """Add a group, of one subdomain at least."""
        made, chain = _pack(group[0].decisions), _pack(group[0].chain)
        members = tuple((node.upper, node.row, node.inherited) for node in group)
        self._packed += len(made) + len(chain) + sum(len(inherited) for _, _, inherited in members)
        self._pushed += 1
        self._count += len(group)
        upper = max(node.upper for node in group)
        heapq.heappush(self._heap, (-upper, self._pushed, made, chain, group[0].closed, members))

    def peek(self) -> Group:
        """The next group to come out."""
        _, _, made, chain, closed, members = self._heap[0]
        decisions, way = _unpack(made), _unpack(chain)
        return tuple(
            Subdomain(upper=upper, row=row, decisions=decisions, chain=way, closed=closed, inherited=inherited)
            for upper, row, inherited in members
        )

    def pop(self) -> None:
        """Drop the next one."""
        _, _, made, chain, _, members = heapq.heappop(self._heap)
        self._packed -= len(made) + len(chain) + sum(len(inherited) for _, _, inherited in members)
        self._count -= len(members)

    def row_upper(self) -> np.ndarray:
        """Largest bound of the open subdomains of each row, (rows,); 0 without any."""
        upper = np.zeros(self.rows)
        for *_, members in self._heap:
            for value, row, _ in members:
                upper[row] = max(upper[row], value)
        return upper

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as plain arrays."""
        entries = sorted(self._heap)
        members = [member for entry in entries for member in entry[5]]
        return {
            "queue_size": np.array([len(e[5]) for e in entries], dtype=np.int32),
            "queue_closed": np.array([e[4] for e in entries], dtype=bool),
            "queue_decisions": np.frombuffer(b"".join(e[2] for e in entries), dtype=np.int32),
            "queue_decisions_length": np.array([len(e[2]) // 4 for e in entries], dtype=np.int32),
            "queue_chain": np.frombuffer(b"".join(e[3] for e in entries), dtype=np.int32),
            "queue_chain_length": np.array([len(e[3]) // 4 for e in entries], dtype=np.int32),
            "queue_upper": np.array([upper for upper, _, _ in members], dtype=np.float64),
            "queue_row": np.array([row for _, row, _ in members], dtype=np.int32),
            "queue_inherited": np.frombuffer(b"".join(memory for _, _, memory in members), dtype=np.uint8),
            "queue_inherited_length": np.array([len(memory) for _, _, memory in members], dtype=np.int32),
        }

    @classmethod
    def from_arrays(cls, rows: int, arrays: dict[str, np.ndarray]) -> Queue:
        """The inverse of :meth:`to_arrays`."""
        queue = cls(rows)
        made = _pieces(arrays["queue_decisions"], arrays["queue_decisions_length"])
        chains = _pieces(arrays["queue_chain"], arrays["queue_chain_length"])
        inherited = _pieces(arrays["queue_inherited"], arrays["queue_inherited_length"])
        members = zip(arrays["queue_upper"].tolist(), arrays["queue_row"].tolist(), inherited, strict=True)
        sizes, closed = arrays["queue_size"].tolist(), arrays["queue_closed"].tolist()
        for size, done, decisions, chain in zip(sizes, closed, made, chains, strict=True):
            queue.push(
                tuple(
                    Subdomain(
                        upper=upper,
                        row=row,
                        decisions=tuple(decisions.tolist()),
                        chain=tuple(chain.tolist()),
                        closed=done,
                        inherited=memory.tobytes(),
                    )
                    for upper, row, memory in itertools.islice(members, size)
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
