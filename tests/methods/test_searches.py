"""What methods that search share: shares of the time, what ended them, and when a value counts as exact."""

from __future__ import annotations

import nets
import numpy as np
import pytest
from scripted import Scripted

from lipcompare import Status
from lipcompare.branching.driver import Stop
from lipcompare.branching.ledger import Ledger
from lipcompare.budget import Budget, Clock, Deadline
from lipcompare.methods.linear import Linear, linear_bounds
from lipcompare.methods.searches import UNDECIDED, Ended, outcome, searched
from lipcompare.preactivation import Tightening

PROBLEM = nets.problem(nets.dense(0, (2, 3, 2)), 0.3, batch=3)


def run(ends: list[Ended | BaseException]) -> tuple[list[float], Status, str]:
    """Seconds that each example had, and how a search that ends like this is told."""
    clock, shares = Clock(Budget(time_limit=30.0)), []

    def search(ledger: Ledger, b: int, part: Linear, deadline: Deadline) -> Ended:
        assert part.problem.batch == 1 and b == len(shares)
        shares.append(deadline.left)
        end = ends[b]
        if isinstance(end, BaseException):
            raise end
        return end

    linear = linear_bounds(PROBLEM, clock, Tightening.CROWN)
    result = searched(Scripted(), PROBLEM, linear, clock, search, nodes="subdomain")
    assert np.isfinite(result.upper).all()
    return shares, result.status, result.detail


def test_examples_share_the_time_and_their_numbers_add_up() -> None:
    shares, status, detail = run([Ended(Stop.DONE, 1, 2), Ended(Stop.NODES, 3, 4), Ended(Stop.DONE, 5, 0)])
    np.testing.assert_allclose(shares, [10, 15, 30], rtol=0.1)
    assert status is Status.NODE_LIMIT and detail == "9 subdomains, 6 linear programs."


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (Ended(Stop.INTERRUPTED, 0, 0), Status.INTERRUPTED),
        (KeyboardInterrupt(), Status.INTERRUPTED),
        (MemoryError(), Status.MEMORY_LIMIT),
    ],
)
def test_what_ends_one_example_starts_no_other(end: Ended | BaseException, status: Status) -> None:
    shares, said, _ = run([end])
    assert len(shares) == 1 and said is status


def test_an_error_is_none_of_memory() -> None:
    with pytest.raises(RuntimeError, match="no memory of it"):
        run([RuntimeError("no memory of it")])


@pytest.mark.parametrize(
    ("lower", "upper", "status"),
    [
        ([[1.0, 0.5]], [[1.00005, 0.9]], Status.EXACT),
        ([[1.0, 0.5]], [[1.0003, 0.9]], Status.INTERRUPTED),
        ([[0.0, 0.0]], [[0.0, 0.0]], Status.EXACT),
        ([[0.0, 0.0]], [[np.inf, np.inf]], Status.INTERRUPTED),
        ([[1.0, 0.0]], [[1.0, np.inf]], Status.INTERRUPTED),
        ([[np.inf, 0.0]], [[np.inf, 1.0]], Status.INTERRUPTED),
        ([[np.nan, 1.0]], [[1.0, 1.0]], Status.INTERRUPTED),
        ([[1.0, 1.0]], [[1.0, np.nan]], Status.INTERRUPTED),
        ([[1.0], [0.0]], [[1.0], [np.inf]], Status.INTERRUPTED),
    ],
)
def test_exact_takes_two_finite_ends(lower, upper, status):
    assert outcome(Stop.INTERRUPTED, np.array(lower), np.array(upper), 1e-4) == (status, "")


def test_what_ran_to_its_end_with_a_gap_says_why() -> None:
    assert outcome(Stop.DONE, np.array([[1.0]]), np.array([[2.0]]), 1e-4) == (Status.COMPLETE, UNDECIDED)
    assert outcome(Stop.DONE, np.array([[1.0]]), np.array([[1.0]]), 1e-4) == (Status.EXACT, "")
