"""What every method and every solver must do, as test classes for pytest; this package's own tests are these.

In a package of one's own, where its entry point (or its module's ``register``) makes it known, one line each:

    class TestMine(MethodConformance): method = "mine"
    class TestTheirs(SolverConformance): solver = "theirs"

This needs pytest, and scipy for solvers.
"""

import pytest

# Before they are imported: a failed assertion then shows its values.
pytest.register_assert_rewrite("lipcompare.testing.suites.methods", "lipcompare.testing.suites.solvers")

from lipcompare.testing.suites.methods import MethodConformance  # noqa: E402
from lipcompare.testing.suites.solvers import SolverConformance  # noqa: E402

__all__ = ["MethodConformance", "SolverConformance"]
