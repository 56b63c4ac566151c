"""Sentences of errors: the likeliest names, no bytes that cannot be printed, whatever a library raises."""

from __future__ import annotations

from pathlib import Path

import pytest

from lipcompare.errors import (
    Contradiction,
    InvalidInput,
    install,
    look_up,
    nearest,
    reading,
    require_file,
    shown,
    summary,
)


def test_the_likeliest_names_are_suggested_and_all_are_listed() -> None:
    assert nearest("lpb", ["lbp", "sdp", "naive"]) == " Did you mean 'lbp'? Known: lbp, naive, sdp."
    assert nearest("xxx", ["lbp", "sdp"]) == " Known: lbp, sdp."


def test_whatever_makes_reading_fail_is_one_sentence() -> None:
    with (
        pytest.raises(
            InvalidInput, match=r"f.onnx is not a readable model \(KeyError: 3\): export it again."
        ) as raised,
        reading("f.onnx", "model", "export it again"),
    ):
        raise KeyError(3)
    assert isinstance(raised.value.__cause__, KeyError)
    for passing in (MemoryError, KeyboardInterrupt, Contradiction("x")):
        with pytest.raises(passing if isinstance(passing, type) else type(passing)), reading("f", "model", "no"):
            raise passing


def test_names_can_be_printed_and_are_not_endless(tmp_path: Path) -> None:
    assert shown("a\udcff") == "a\\udcff" and len(shown("x" * 1000)) < 200
    assert summary(ValueError("\n  first.\nsecond")) == "ValueError: first" and summary(ValueError()) == "ValueError"
    with pytest.raises(InvalidInput, match="is not a file"):
        require_file(tmp_path)
    assert install("milp") == "pip install 'lipcompare[milp]'"


def test_a_name_that_is_not_in_a_table_is_told_with_those_that_are() -> None:
    table = {"lbp": 1, "ibp": 2}
    assert look_up(table, "ibp", "relaxation") == 2
    with pytest.raises(InvalidInput, match=r"^Unknown relaxation 'lpb'. Did you mean 'lbp'"):
        look_up(table, "lpb", "relaxation")
