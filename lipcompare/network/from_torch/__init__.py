"""Networks from torch modules and exported programs."""

from lipcompare.network.from_torch.archive import from_pt2
from lipcompare.network.from_torch.importer import example_shape, from_exported, from_module

__all__ = ["example_shape", "from_exported", "from_module", "from_pt2"]
