"""Checking: both ends of every row derived anew. What fails proves less, and is named; nothing is taken on trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lipverify.backward import norm_product
from lipverify.certificate import Certificate, Proof
from lipverify.lower import Dyadic, attained
from lipverify.network import Question, Refused
from lipverify.numbers import Exact, Floating, outward
from lipverify.tree import Case, case_bounds, largest, settled


class Proved(NamedTuple):
    """One row: the proved interval, rounded outward, and what failed on the way, in words."""

    lower: float
    upper: float
    failures: tuple[str, ...]


def check(certificate: Certificate, *, exact: bool = False) -> list[Proved]:
    """What the certificate proves, row by row."""
    asked = certificate.question
    failures: list[list[str]] = [[] for _ in certificate.proofs]
    with np.errstate(all="ignore"):  # what is not a number proves nothing
        lowers = _lowers(asked, certificate.proofs, failures)
        try:
            question = asked.to(Exact() if exact else Floating())
            uppers = _uppers(question, certificate)
        except (Refused, OverflowError) as error:
            uppers = [np.inf for _ in certificate.proofs]
            failures = [[*said, f"row {number}, upper end: {error}"] for number, said in enumerate(failures)]
    results = []
    for number, (proof, low, high, said) in enumerate(zip(certificate.proofs, lowers, uppers, failures, strict=True)):
        if low < proof.lower:
            said.append(f"row {number}: claims at least {proof.lower!r}, proved is {low!r}")
        if not high <= proof.upper:
            said.append(f"row {number}: claims at most {proof.upper!r}, proved is {high!r}")
        results.append(Proved(low, high, tuple(said)))
    return results


def _lowers(asked: Question, proofs: Sequence[Proof], failures: Sequence[list[str]]) -> list[float]:
    """What points attain, row by row; 0 where no point says anything, and why that is."""
    numbers = [[Dyadic.of(part) for part in node.numbers] for node in asked.network.nodes]
    found = [0.0 for _ in proofs]
    for i, proof in enumerate(proofs):
        if proof.point is not None:
            try:
                value = attained(asked, numbers, asked.rows[i], proof.point, proof.sides)
                found[i] = outward(value, up=False, root=asked.norm == "2")
            except Refused as error:
                failures[i].append(f"row {i}, lower end: {error}")
    return found


def _uppers(question: Question, said: Certificate) -> list[float]:
    """What the proofs give, row by row; infinity for those without one."""
    squared, cases, values = question.norm == "2", list[Case](), dict[int, Any]()
    for i, proof in enumerate(said.proofs):
        claim = question.arithmetic.array(min(max(proof.upper, 0.0), 1e100))[()]
        cases += [Case(i, leaf, claim * claim if squared else claim) for leaf in proof.leaves]
        if proof.norms:
            values[i] = norm_product(question, question.rows[i])
    bounds = case_bounds(question, settled(question, said.below, said.lemmas), cases) if cases else []
    for i in {case.row for case in cases}:
        values[i] = largest([bound for bound, case in zip(bounds, cases, strict=True) if case.row == i])
    return [outward(values[i], up=True, root=squared) if i in values else np.inf for i in range(len(said.proofs))]
