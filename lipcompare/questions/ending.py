"""How a question ends: what it has proved by then stands, whatever ends it."""

from __future__ import annotations

import contextlib
import dataclasses
from types import TracebackType

from lipcompare.budget import Deadline
from lipcompare.errors import is_out_of_memory
from lipcompare.result import Status


@dataclasses.dataclass(eq=False)
class Ending(contextlib.AbstractContextManager["Ending"]):
    """The part of a question's work that may be cut short; its status afterwards.

    Attributes:
        deadline: asked by the work.
    """

    deadline: Deadline = dataclasses.field(default_factory=Deadline)
    status: Status = Status.COMPLETE

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, KeyboardInterrupt):
            self.status = Status.INTERRUPTED
        elif error is not None and is_out_of_memory(error):
            self.status = Status.OUT_OF_MEMORY
        elif error is None and self.deadline.missed:
            self.status = Status.TIME_LIMIT
        return error is not None and self.status is not Status.COMPLETE
