"""The process beside the search: makes the evaluators that it is sent, and evaluates subdomains with them."""

from __future__ import annotations

import dataclasses
import pickle
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from lipcompare.branching.driver import Assessment, Evaluator
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Deadline
from lipcompare.network.environment import computing
from lipcompare.processes.serving import serve


class Portable(Evaluator, Protocol):
    """An evaluator that can be made anew elsewhere: a dataclass of what it was made with.

    Attributes:
        deadline: of its work.
        programs: linear programs solved so far.
        shares: whether subdomains with the same decisions are to be evaluated together.
    """

    deadline: Deadline

    @property
    def programs(self) -> int: ...

    @property
    def shares(self) -> bool: ...


class Made(NamedTuple):
    """What to make an evaluator of; what it computes for itself may not outlive its process (addresses do not)."""

    kind: type
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, evaluator: Portable) -> Made:
        fields = dataclasses.fields(evaluator)  # type: ignore[arg-type]  # protocols cannot ask for a dataclass
        return cls(type(evaluator), {f.name: getattr(evaluator, f.name) for f in fields if f.init})


class Ready(NamedTuple):
    """The process has imported everything."""


class Request(NamedTuple):
    """Subdomains to evaluate.

    Attributes:
        key: of the evaluator: its example and a number; those of another example are not asked for again.
        made: a pickled :class:`Made`, the first time that this evaluator is asked for.
        left: seconds.
    """

    key: tuple[int, int]
    made: bytes | None
    nodes: Sequence[Subdomain]
    floor: float
    target: float
    left: float


class Answer(NamedTuple):
    """What the evaluator says of the first of them, and the linear programs that it took."""

    assessments: Sequence[Assessment]
    programs: int


def main() -> None:
    """Serve until the search is over."""
    receive, send = serve()
    evaluators: dict[tuple[int, int], Portable] = {}
    with computing(threads=1):
        send(Ready())
        while True:
            request: Request = receive()
            if request.made is not None:
                evaluators = {key: evaluators[key] for key in evaluators if key[0] == request.key[0]}
                made: Made = pickle.loads(request.made)  # noqa: S301  # from the search
                evaluators[request.key] = made.kind(**made.fields)
            evaluator = evaluators[request.key]
            # Clocks of two processes need not agree.
            evaluator.deadline.at = time.perf_counter() + request.left
            before = evaluator.programs
            assessments = evaluator.evaluate(request.nodes, request.floor, request.target)
            send(Answer(tuple(assessments), evaluator.programs - before))
