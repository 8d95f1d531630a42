"""Makes the training code importable: it is no part of the package that is installed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "backend" / "training"))
