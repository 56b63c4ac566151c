"""The joint bound of small problems."""

from __future__ import annotations

from lipcompare import Problem
from lipcompare.jacobian import RELAXATIONS
from lipcompare.preactivation import Tightening
from lipcompare.propagation import propagate
from lipcompare.quadratic.joint import JointBound, joint_bound


def bound_of(problem: Problem, *, solve: bool = True) -> JointBound:
    linear = propagate(problem, Tightening.CROWN, RELAXATIONS["lbp"], joint=False, memory=2**30)
    return joint_bound(
        problem.network, linear.gates, problem.functionals, linear.gradients, solve=solve, tolerance=1e-5
    )
