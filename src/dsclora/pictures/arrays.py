"""Types of picture arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
"""uint8 or uint16, (height, width, bands)."""

Uint8 = npt.NDArray[np.uint8]

Float32 = npt.NDArray[np.float32]
