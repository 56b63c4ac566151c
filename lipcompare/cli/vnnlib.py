"""Input boxes from VNN-LIB files (version 1: SMT-LIB assertions over ``X_i`` and ``Y_j``).

Only the constraints on the inputs matter for a local Lipschitz constant, so those on the outputs are skipped. Inputs
must be bounded one by one; a disjunction of boxes gives a batch of boxes.
"""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lipcompare.errors import InvalidInput, reading, shown
from lipcompare.network.room import MEMORY

_MOST_BOXES = 10_000
_MOST_NUMBERS = 2**25  # coordinates of a corner, over all boxes
_PARSED = 32  # bytes of memory per byte of text: measured 15 to 25 on files with one bound a line
_DEEPEST = 100
_TOKEN = re.compile(r";[^\n]*|[()]|[^\s();]+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INDEX = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)

Expression = str | list["Expression"]
Ranges = tuple[tuple[int, float, float], ...]
"""One alternative: (input, lower, upper) for every constraint in it."""


@dataclasses.dataclass(frozen=True, eq=False)
class VnnlibBoxes:
    """The boxes of a file.

    Attributes:
        lower, upper: (boxes, inputs).
        outputs_ignored: whether the file also constrains outputs, which was ignored.
    """

    lower: np.ndarray
    upper: np.ndarray
    outputs_ignored: bool


def read_vnnlib(path: str | os.PathLike[str], *, memory: int = MEMORY) -> VnnlibBoxes:
    """The boxes of a ``.vnnlib`` file, which may be compressed (``.vnnlib.gz``).

    Args:
        path: the file.
        memory: bytes that reading may take.

    Raises:
        InvalidInput: a missing or broken file, one that does not fit in memory, an unbounded input, or input
            constraints that are not boxes.
    """
    file = Path(path)
    with reading(file, "VNN-LIB text file", "save it again"):
        if not file.is_file():
            raise InvalidInput(f"{shown(file)} is not a file: check the path of the VNN-LIB file.")
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
            data = stream.read(memory // _PARSED + 1)
        if len(data) > memory // _PARSED:
            raise InvalidInput(
                f"{shown(file)} has more than {memory // _PARSED:,} bytes of text, and reading takes {_PARSED} times "
                "as much memory: raise the memory limit (--memory), or split the file."
            )
        try:
            return parse_vnnlib(data.decode())
        except InvalidInput as error:
            raise InvalidInput(f"{shown(file)}: {error}") from None


def parse_vnnlib(text: str) -> VnnlibBoxes:
    """The boxes that a VNN-LIB text describes; errors as :func:`read_vnnlib`."""
    inputs: set[int] = set()
    alternatives: list[list[Ranges]] = []
    outputs = False
    for statement in _expressions(text):
        match statement:
            case ["declare-const" | "declare-fun", str(name), *_]:
                if name.startswith("X_"):
                    inputs.add(_index(name))
            case ["assert", condition]:
                alternatives.append(_alternatives(condition))
                outputs = outputs or _mentions(condition, "Y_")
            case ["declare-network" | "vnnlib-version", *_]:
                raise InvalidInput("this is VNN-LIB 2: write the box as VNN-LIB 1, or give its two corners.")
            case _:
                raise InvalidInput(f"cannot read {_text(statement)}: only declare-const and assert are known.")
    if inputs != set(range(len(inputs))) or not inputs:
        raise InvalidInput(f"the inputs must be declared as X_0, X_1, ...; found {len(inputs)} of them.")
    # What has one alternative holds in every box; few statements have several.
    always = _joined(parts[0] for parts in alternatives if len(parts) == 1)
    choices = _product([parts for parts in alternatives if len(parts) != 1])
    if len(choices) * len(inputs) > _MOST_NUMBERS:
        raise InvalidInput(f"the file describes {len(choices):,} boxes of {len(inputs):,} inputs: split it.")
    boxes = [_box(itertools.chain(always, *choice), len(inputs)) for choice in choices]
    return VnnlibBoxes(np.stack([b[0] for b in boxes]), np.stack([b[1] for b in boxes]), outputs)


def _joined(parts: Iterable[Ranges]) -> Ranges:
    return tuple(itertools.chain.from_iterable(parts))


def _box(ranges: Iterable[tuple[int, float, float]], size: int) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
    for i, low, high in ranges:
        if i >= size:
            raise InvalidInput(f"X_{i} is constrained but not declared.")
        lower[i], upper[i] = max(lower[i], low), min(upper[i], high)
    for i in range(size):
        if np.isinf(lower[i]) or np.isinf(upper[i]):
            side = "lower" if np.isinf(lower[i]) else "upper"
            raise InvalidInput(f"input X_{i} has no {side} bound: add one, so that the inputs form a box.")
    return lower, upper


def _alternatives(condition: Expression) -> list[Ranges]:
    """The condition on the inputs as a disjunction; conditions on outputs count as true."""
    match condition:
        case ["and", *parts]:
            found = [_alternatives(operand) for operand in parts]
            always = _joined(alternatives[0] for alternatives in found if len(alternatives) == 1)
            return [always + _joined(choice) for choice in _product([a for a in found if len(a) != 1])]
        case ["or", *parts] if parts:
            return [a for operand in parts for a in _alternatives(operand)]
        case ["<=" | ">=" | "=" as sign, left, right]:
            return [_comparison(sign, left, right, condition)]
        case [("<" | ">"), *_]:
            raise InvalidInput(f"strict inequality {_text(condition)}: write <= or >=, boxes are closed.")
        case _:
            raise InvalidInput(f"cannot read the condition {_text(condition)}: only and, or, <=, >= and = are known.")


def _product(parts: list[list[Ranges]]) -> list[tuple[Ranges, ...]]:
    """One alternative of every part, in all combinations."""
    distinct = [list(dict.fromkeys(part)) for part in parts]
    if math.prod(len(part) for part in distinct) > _MOST_BOXES:
        raise InvalidInput(f"the file describes more than {_MOST_BOXES:,} boxes: split it into several files.")
    return list(itertools.product(*distinct))


def _comparison(sign: str, left: Expression, right: Expression, condition: Expression) -> Ranges:
    if not _mentions(condition, "X_"):
        return ()
    if isinstance(right, str) and right.startswith("X_"):
        left, right, sign = right, left, {"<=": ">=", ">=": "<=", "=": "="}[sign]
    value = _constant(right)
    if not isinstance(left, str) or not left.startswith("X_") or value is None:
        raise InvalidInput(f"{_text(condition)} is not a bound on one input, so the inputs do not form a box.")
    lower = -math.inf if sign == "<=" else value
    upper = math.inf if sign == ">=" else value
    return ((_index(left), lower, upper),)


def _constant(expression: Expression) -> float | None:
    match expression:
        case ["-", part]:
            value = _constant(part)
            return None if value is None else -value
        case ["/", over, under]:
            above, below = _constant(over), _constant(under)
            return None if above is None or not below else above / below
        case str():
            value = float(expression) if _NUMBER.fullmatch(expression) else math.nan
            return value if math.isfinite(value) else None
    return None


def _index(name: str) -> int:
    digits = name.removeprefix("X_")
    if not _INDEX.fullmatch(digits):
        raise InvalidInput(f"inputs are called X_0, X_1, ..., not {_text(name)}.")
    return int(digits)


def _mentions(expression: Expression, prefix: str) -> bool:
    if isinstance(expression, str):
        return expression.startswith(prefix)
    return any(_mentions(part, prefix) for part in expression)


def _expressions(text: str) -> Iterator[Expression]:
    """The file's S-expressions, one statement after another."""
    open_: list[list[Expression]] = []
    any_ = False
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token[0] == ";":
            continue
        done: Expression
        if token == "(":
            open_.append([])
            if len(open_) > _DEEPEST:
                raise InvalidInput(f"parentheses are nested more than {_DEEPEST} deep: write the box plainly.")
            continue
        if token != ")":
            done = token
        elif open_:
            done = open_.pop()
        else:
            raise InvalidInput("a closing parenthesis has no partner: the file is broken.")
        if open_:
            open_[-1].append(done)
        else:
            any_ = True
            yield done
    if open_:
        raise InvalidInput("a parenthesis is never closed: the file is cut off.")
    if not any_:
        raise InvalidInput("the file has no statements.")


def _text(expression: Expression) -> str:
    whole = expression if isinstance(expression, str) else f"({' '.join(_text(part) for part in expression[:20])})"
    return whole if len(whole) <= 60 else f"{whole[:57]}..."
