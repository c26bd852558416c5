"""Mixed precision: a model in half precision computes in float32 where this is necessary."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

HALF = (torch.float16, torch.bfloat16)
"""The half-precision dtypes."""


def mixed_precision(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Autocast to ``dtype`` if it is a half-precision dtype, else a context that changes nothing."""
    return torch.autocast(device.type, dtype) if dtype in HALF else contextlib.nullcontext()
