"""Other programs beside this one. Their adapters are a package of its own, used here without being installed."""

import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "package"
if str(PACKAGE) not in sys.path:
    sys.path.append(str(PACKAGE))
