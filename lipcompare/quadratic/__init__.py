"""The quadratic-gate semidefinite relaxation (docs/quadratic-gates.md)."""
