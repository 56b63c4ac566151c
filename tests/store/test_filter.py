"""A filter selects rows of the store, and names what it does not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_up import member, record

from lipcompare import InvalidInput
from lipcompare.store.database import Store
from lipcompare.store.filter import Filter


def test_a_filter_selects_rows_and_names_what_is_unknown(path: Path) -> None:
    with Store(path) as store:
        store.declare("s", [member(), member("b", task="eps=0.2", series="x"), member("c", task="eps=0.2")])
        store.put(record())
        store.put(record("b", method="sdp", status="time_limit"))
        frame = store.frame()

    def keys(**fields: tuple[str, ...]) -> list[str]:
        return list(Filter(**fields).select(frame)["key"])

    assert keys() == ["a", "b", "c"]
    assert keys(methods=("sdp",)) == keys(methods=("x",)) == keys(statuses=("time_limit",)) == ["b"]
    assert keys(tasks=("0.2",), studies=("s",)) == ["b", "c"] and keys(tasks=("0.2", "0.1"), methods=("lbp",)) == [
        "a",
        "c",
    ]
    assert keys(statuses=("pending",)) == ["c"] and keys(statuses=("crashed",)) == []
    for fields, says in (
        ({"studies": ("S",)}, "Unknown study 'S'"), ({"methods": ("lpb",)}, "Did you mean 'lbp'"),
        ({"tasks": ("width",)}, "contains 'width'. Such names are: eps=0.1, eps=0.2"),
        ({"statuses": ("timelimit",)}, "Did you mean 'time_limit'"),
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match=re.escape(says)):
            keys(**fields)
