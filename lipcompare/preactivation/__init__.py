"""Bounds on the pre-activations over a box: interval arithmetic, CROWN, optimised CROWN. No gradients here."""

from lipcompare.preactivation.forward import Tightening, preactivation_bounds
from lipcompare.preactivation.functionals import ForwardBound
from lipcompare.preactivation.interval import interval_bounds

__all__ = ["ForwardBound", "Tightening", "interval_bounds", "preactivation_bounds"]
