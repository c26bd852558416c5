"""The type of the arrays of numbers that laws, strategies and replays compute with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""An array of 64-bit floats. The end of an array's name gives its shape, e.g. ``loss_SC``: S draws, C candidates."""
