"""How much memory is free, and what a forward keeps for its backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

SHARE = 0.7
"""Share of the free memory that training may take: estimates are rough, and remembered features need room as well."""
ESTIMATE_MARGIN = 1.15
"""Factor on the activations, for tensors that exist only briefly; measured (tests/unit/engine/test_footprint.py)."""
UPDATE_COPIES = 2
"""Copies of all trained tensors that an optimizer makes for a moment while it moves them; those of AdamW."""
MEASURED_ROWS = 2
"""Rows on which the memory of a run is measured, the longest there are, and as many with pictures and sounds."""
PROCESSOR_ACTIVATIONS = 1 << 30
"""Bytes of activations from which a step is split on a CPU. A language model of 135 M parameters trained four members
as fast in micro-batches of 592 tokens as in one of 2,368, in 2.8 GB instead of 4.4."""
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux keeps the memory limit of a container."""
NO_LIMIT = 1 << 62
"""More bytes than any machine has."""


class Kept(NamedTuple):
    """The bytes that a forward keeps for its backward."""

    total: int
    largest: int
    """Those of the largest tensor: of it a gradient and a copy exist at a time."""


def measure_kept(forward: Callable[[], Tensor], parameters: Iterable[Tensor]) -> Kept:
    """What ``forward`` keeps besides ``parameters``, each storage once."""
    known = {key for parameter in parameters for key, _ in _storages(parameter)}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept.update((key, size) for key, size in _storages(tensor) if key not in known)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = forward()
    del loss
    return Kept(sum(kept.values()), max(kept.values(), default=0))


def _storages(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the storages of a tensor: several if it wraps others, as quantised ones of torchao do."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _storages(getattr(tensor, name))
    else:
        storage = tensor.untyped_storage()
        yield storage.data_ptr(), storage.nbytes()


def free_bytes(device: torch.device) -> int:
    """Bytes that this process could still take on ``device``, within the limit of its container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(int(psutil.virtual_memory().available), _container_free_bytes())


def _container_free_bytes() -> int:
    try:
        limit: Any = (CGROUP / "memory.max").read_text().strip()
        return int(limit) - int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or no limit ("max")
        return NO_LIMIT
