"""Boxes from VNN-LIB texts."""

from __future__ import annotations

import gzip
import re
import time

import numpy as np
import pytest

from lipcompare.cli.vnnlib import parse_vnnlib, read_vnnlib
from lipcompare.errors import InvalidInput

DECLARED = "(declare-const X_0 Real) (declare-fun X_1 () Real)\n(declare-const Y_0 Real)\n"
UNIT = "(assert (>= X_0 0)) (assert (<= X_0 1)) (assert (>= X_1 0)) (assert (<= X_1 1))"


def test_a_box_with_comments_and_outputs() -> None:
    boxes = parse_vnnlib(
        DECLARED
        + """
        ; a comment with (parentheses
        (assert (<= X_0 0.5)) (assert (>= X_0 -1e-1))  ; more
        (assert (and (<= -2 X_1) (>= (- 1) X_1)))
        (assert (or (and (<= Y_0 3)) (>= Y_0 4)))
        """
    )
    np.testing.assert_array_equal(boxes.lower, [[-0.1, -2.0]])
    np.testing.assert_array_equal(boxes.upper, [[0.5, -1.0]])
    assert boxes.outputs_ignored


def test_the_tightest_of_several_constraints_holds() -> None:
    boxes = parse_vnnlib(DECLARED + UNIT + "(assert (= X_0 0.25)) (assert (<= X_1 (/ 1 3)))")
    np.testing.assert_array_equal(boxes.lower, [[0.25, 0.0]])
    np.testing.assert_array_equal(boxes.upper, [[0.25, 1 / 3]])
    assert not boxes.outputs_ignored


def test_a_disjunction_of_boxes_is_a_batch() -> None:
    boxes = parse_vnnlib(
        DECLARED
        + "(assert (>= X_1 0)) (assert (<= X_1 1))"
        + "(assert (or (and (>= X_0 0) (<= X_0 1) (<= Y_0 0)) (and (>= X_0 2) (<= X_0 3) (>= Y_0 5))))"
    )
    np.testing.assert_array_equal(boxes.lower, [[0, 0], [2, 0]])
    np.testing.assert_array_equal(boxes.upper, [[1, 1], [3, 1]])


def test_disjunctions_that_differ_in_outputs_only_are_one_box() -> None:
    both = "(and (>= X_0 0) (<= X_0 1) (<= Y_0 {}))"
    boxes = parse_vnnlib(
        DECLARED + f"(assert (or {both.format(0)} {both.format(1)})) (assert (>= X_1 0)) (assert (<= X_1 1))"
    )
    assert boxes.lower.shape == (1, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DECLARED + "(assert (<= X_0 1))", "X_0 has no lower bound: add one"),
        (DECLARED + UNIT + "(assert (<= X_0 X_1))", "not a bound on one input"),
        (DECLARED + UNIT + "(assert (<= X_0 Y_0))", "not a bound on one input"),
        (DECLARED + UNIT + "(assert (<= (+ X_0 X_1) 1))", "not a bound on one input"),
        (DECLARED + UNIT + "(assert (< X_0 1))", "write <= or >="),
        (DECLARED + UNIT + "(assert (not (<= X_0 1)))", "only and, or, <=, >= and = are known"),
        (DECLARED + UNIT + "(assert (<= X_7 1))", "X_7 is constrained but not declared"),
        (DECLARED + UNIT + "(check-sat)", "only declare-const and assert are known"),
        (DECLARED + UNIT + "(assert (<= X_0 1)", "cut off"),
        (DECLARED + UNIT + ")", "broken"),
        ("(declare-const X_1 Real)" + UNIT, "X_0, X_1, ..."),
        ("(declare-const X_a Real)", "X_0, X_1, ..."),
        ("(declare-const X_" + "9" * 5000 + " Real)", "X_0, X_1, ..., not X_9"),
        ("(declare-const X_\u0663 Real)", "X_0, X_1, ..."),
        ("(declare-const X_0003 Real)", "X_0, X_1, ..."),
        (DECLARED + UNIT + "(assert (<= X_0 1_000))", "not a bound on one input"),
        (DECLARED + UNIT + "(assert (<= X_0 \u0661))", "not a bound on one input"),
        (DECLARED + UNIT + "(assert " + "(and " * 2000 + "(<= X_0 1)" + ")" * 2000 + ")", "nested more than 100 deep"),
        ("(declare-network N)", "VNN-LIB 1"),
        ("; nothing", "no statements"),
        (DECLARED + "".join(f"(assert (or (<= X_0 {k}) (<= X_1 {k})))" for k in range(14)), "split it"),
    ],
)
def test_a_bad_text_says_what_to_do(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(says)):
        parse_vnnlib(text)


def test_files(tmp_path) -> None:
    plain, packed = tmp_path / "a.vnnlib", tmp_path / "a.vnnlib.gz"
    plain.write_text(DECLARED + UNIT)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for file in (plain, packed):
        np.testing.assert_array_equal(read_vnnlib(file).upper, [[1, 1]])
    packed.write_bytes(packed.read_bytes()[:20])
    with pytest.raises(InvalidInput, match="save it again"):
        read_vnnlib(packed)
    with pytest.raises(InvalidInput, match="check the path"):
        read_vnnlib(tmp_path / "missing.vnnlib")
    plain.write_text("(assert (<= X_0 1)")
    with pytest.raises(InvalidInput, match=r"a\.vnnlib: .*cut off"):
        read_vnnlib(plain)


def test_the_competition_files(shared) -> None:
    files = sorted((shared / "data" / "networks" / "vnncomp" / "specs").glob("*.vnnlib"))
    assert files
    for file in files:
        boxes = read_vnnlib(file)
        assert boxes.lower.shape == (1, 3 if "vdp" in file.name else 5)
        assert (boxes.lower <= boxes.upper).all()
        assert boxes.outputs_ignored


def test_many_inputs_take_time_in_proportion() -> None:
    def seconds(inputs: int) -> float:
        lines = [f"(declare-const X_{i} Real)\n(assert (<= X_{i} 1))\n(assert (>= X_{i} -1))" for i in range(inputs)]
        text = "\n".join([*lines, "(declare-const Y_0 Real)", "(assert (or (and (<= Y_0 0)) (and (>= Y_0 1))))"])
        before = time.process_time()
        boxes = parse_vnnlib(text)
        assert boxes.lower.shape == (1, inputs)
        return time.process_time() - before

    seconds(100)
    assert seconds(16_000) < 16 * seconds(2_000) + 0.2  # 8 times as many; joining them one by one took 64 times


@pytest.mark.parametrize("damage", ["bomb", "cut", "no gzip", "not text"])
def test_files_that_are_damaged(tmp_path, damage: str) -> None:
    path = tmp_path / "a.vnnlib.gz"
    packed = gzip.compress(b"(assert (<= X_0 1))\n" * (5 << 20)) if damage == "bomb" else gzip.compress(UNIT.encode())
    content = {"cut": packed[:-20] + bytes(20), "no gzip": b"(", "not text": gzip.compress(b"\xff\xfe")}
    path.write_bytes(content.get(damage, packed))
    with pytest.raises(
        InvalidInput,
        match="8,388,608 bytes of text, .*: raise the memory limit" if damage == "bomb" else "save it again",
    ):
        read_vnnlib(path, memory=2**28)
