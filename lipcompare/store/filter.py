"""Which rows of a store are meant: by study, task, method and status, with an error for a name that is not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lipcompare.errors import InvalidInput, nearest
from lipcompare.result import Status

if TYPE_CHECKING:
    import pandas as pd

PENDING = "pending"
"""Stands for the status of a cell that is not finished."""

STATUSES = (*(status.name.lower() for status in Status), PENDING)


@dataclasses.dataclass(frozen=True)
class Filter:
    """What must hold of a row; an empty field lets every row through, several values let any of them through.

    Attributes:
        studies: names.
        tasks: pieces of the task's name.
        methods: names of series or of methods.
        statuses: of ``STATUSES``.
    """

    studies: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for status in self.statuses:
            _known("status", status, STATUSES)

    def select(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of :meth:`lipcompare.store.database.Store.frame` that are meant.

        Raises:
            InvalidInput: a study or a method that no row has, or a piece that no task's name contains.
        """
        rows = frame
        if self.studies:
            for study in self.studies:
                _known("study", study, frame["study"])
            rows = rows[rows["study"].isin(self.studies)]
        if self.methods:
            for method in self.methods:
                _known("method", method, {*frame["series"], *frame["method"].dropna()})
            rows = rows[rows["series"].isin(self.methods) | rows["method"].isin(self.methods)]
        if self.tasks:
            for piece in self.tasks:
                if not frame["task"].str.contains(piece, regex=False).any():
                    names = ", ".join(list(dict.fromkeys(rows["task"]))[:5])
                    raise InvalidInput(f"No task's name contains {piece!r}. Such names are: {names}.")
            rows = rows[[any(piece in task for piece in self.tasks) for task in rows["task"]]]
        if self.statuses:
            rows = rows[rows["status"].fillna(PENDING).isin(self.statuses)]
        return rows


def _known(what: str, name: str, names: Iterable[object]) -> None:
    choices = {str(choice) for choice in names}
    if name not in choices:
        raise InvalidInput(f"Unknown {what} {name!r}.{nearest(name, choices)}")
