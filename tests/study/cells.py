"""A study of one small network."""

from __future__ import annotations

import nets

from lipcompare.study.run import CellLimits, Setting, Study, Task


def study(*settings: Setting, limits: CellLimits = CellLimits(time=5.0), radii: tuple[float, ...] = (0.1,)) -> Study:
    problems = {eps: nets.problem(nets.dense(0), eps) for eps in radii}
    return Study("test", [Task(p, {"eps": eps}) for eps, p in problems.items()], settings, limits)
