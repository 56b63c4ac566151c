"""Sentences of errors: the likeliest names, no bytes that cannot be printed, whatever a library raises."""

from __future__ import annotations

from pathlib import Path

import pytest

import lipcompare
from lipcompare import Problem, questions
from lipcompare.errors import (
    Contradiction,
    InvalidInput,
    install,
    known_keywords,
    look_up,
    nearest,
    reading,
    require_file,
    shown,
    summary,
)


def test_the_likeliest_names_are_suggested_and_all_are_listed() -> None:
    assert nearest("lpb", ["lbp", "sdp", "naive"]) == " Did you mean 'lbp'? Known: lbp, naive, sdp."
    assert nearest("lpb", ["lp", "lbp", "lpbx"]).startswith(" Did you mean 'lbp' or ")  # two letters swapped
    assert nearest("xxx", ["lbp", "sdp"]) == " Known: lbp, sdp."
    assert nearest("lip", ["lp", "lipbab", "lipsdp", "naive"]).startswith(" Did you mean 'lp' or 'lipbab' or 'lipsdp'?")
    assert nearest("", ["lp", "sdp"]) == " Known: lp, sdp."


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


def test_a_keyword_that_nobody_has_is_answered_with_the_likeliest() -> None:
    """Here, where people come from other programs and guess; Python alone says that it was unexpected."""

    @known_keywords
    def run(problem: int, *, time_limit: float = 1.0) -> float:
        return problem + time_limit

    assert run(1) == run(problem=1) == 2.0 and run(1, time_limit=2.0) == 3.0
    with pytest.raises(InvalidInput, match=r"^run\(\) has no argument 'timelimit'. Did you mean 'time_limit'\?"):
        run(1, timelimit=2)  # type: ignore[call-arg]
    for public in (
        lipcompare.compare, Problem.around, lipcompare.load, questions.jacobian_bounds, questions.directional_bounds,
        questions.monotonicity, questions.certified_radius, questions.operator_norm_bounds,
        questions.exact_operator_norms,
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match=r"has no argument 'input_shap'\."):
            public(None, input_shap=2)


def test_a_path_that_is_none_is_one_sentence() -> None:
    with pytest.raises(InvalidInput, match=r"is not a readable file \(OSError: .*\): check the path\."):
        require_file("x" * 5000)
