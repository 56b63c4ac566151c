"""Linear functionals of a network's values that live on windows of images, and linear maps on them."""

from lipcompare.network.patches.costs import Costs, frame_after, window_costs
from lipcompare.network.patches.maps import push_back, push_on
from lipcompare.network.patches.table import Table, dot
from lipcompare.network.patches.windows import Items, Patches, positions_of

__all__ = [
    "Costs", "Items", "Patches", "Table", "dot", "frame_after", "positions_of", "push_back", "push_on", "window_costs",
]  # fmt: skip
