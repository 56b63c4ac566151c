"""All rows at once: the quadratic-gate relaxation of the largest singular value of the Jacobian (p = 2)."""

from lipcompare.quadratic.joint.bound import JointBound, joint_bound

__all__ = ["JointBound", "joint_bound"]
