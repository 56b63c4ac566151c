"""Checking: both ends of every row derived anew. What fails proves less, and is named; nothing is taken on trust."""

from __future__ import annotations

import dataclasses

import numpy as np

from lipverify.backward import gradients, norm_bound, norm_product
from lipverify.certificate import Certificate, Proof
from lipverify.forward import Domain, Forward, forward
from lipverify.lower import attained
from lipverify.numbers import Exact, Floating, outward
from lipverify.question import Question, Refused
from lipverify.tree import tree_bound


@dataclasses.dataclass(frozen=True)
class Proved:
    """One row: the proved interval, rounded outward, and what failed on the way, in words."""

    lower: float
    upper: float
    failures: tuple[str, ...]


def check(certificate: Certificate, *, exact: bool = False) -> list[Proved]:
    """What the certificate proves, row by row."""
    whole: Forward | None = None
    box, results = (certificate.lower, certificate.upper), []
    with np.errstate(all="ignore"):  # what is not a number proves nothing
        for number, (row, proof) in enumerate(zip(certificate.rows, certificate.proofs, strict=True)):
            asked = Question(certificate.network, Floating(), *box, row, certificate.norm)
            low, high, said = 0.0, np.inf, []
            if proof.point is not None:
                try:
                    low = _lower(asked, proof)
                except Refused as error:
                    said.append(f"row {number}, lower end: {error}")
            if proof.kind:
                try:
                    question = asked.to(Exact() if exact else Floating())
                    if whole is None and proof.kind != "norms":
                        everywhere = Domain(question.lower, question.upper, np.zeros(question.network.gates, int))
                        whole = forward(question, everywhere, {})
                    high = _upper(question, whole, proof)
                except (Refused, OverflowError) as error:
                    said.append(f"row {number}, upper end: {error}")
            if low < proof.lower:
                said.append(f"row {number}: claims at least {proof.lower!r}, proved is {low!r}")
            if not high <= proof.upper:
                said.append(f"row {number}: claims at most {proof.upper!r}, proved is {high!r}")
            results.append(Proved(low, high, tuple(said)))
    return results


def _lower(asked: Question, proof: Proof) -> float:
    rational = asked.to(Exact())
    value = attained(rational, rational.arithmetic.array(proof.point), proof.sides)
    return outward(value, up=False, root=asked.norm == "2")


def _upper(question: Question, whole: Forward | None, proof: Proof) -> float:
    if whole is None or proof.kind == "norms":  # the maps alone
        value = norm_product(question)
    elif proof.kind == "tree":
        claim = question.arithmetic.array(min(max(proof.upper, 0.0), 1e100))[()]
        target = claim * claim if question.norm == "2" else claim
        value = tree_bound(question, whole.bounds, proof.nodes, proof.leaves, target)
    else:
        value = norm_bound(question, gradients(question, whole.slopes))
    return outward(value, up=True, root=question.norm == "2")
