"""Types of picture arrays."""

from typing import Any

import numpy.typing as npt

Pixels = npt.NDArray[Any]
"""uint8 or uint16, (height, width, bands)."""
