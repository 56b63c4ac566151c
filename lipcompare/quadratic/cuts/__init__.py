"""Cutting planes of the quadratic-gate relaxation."""
