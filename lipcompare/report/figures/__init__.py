"""Pictures of comparisons and of results stores; also known as ``lipcompare.plots``."""

from lipcompare.display.intervals import comparison, save, trace
from lipcompare.report.figures.store import over_time, pareto, profile, statuses, sweep, values

__all__ = ["comparison", "over_time", "pareto", "profile", "save", "statuses", "sweep", "trace", "values"]
