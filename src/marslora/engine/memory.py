"""How much memory a member takes, and what is free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from marslora.core.spec import MemberSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.models.answers import Batch
from marslora.models.precision import HALF

SHARE = 0.7
"""Share of the free memory that a pack may take: the estimate is rough, and remembered features need room as well."""
MEASURED_ROWS = 2
"""Rows on which the memory of a member is measured, the longest there are, and as many with pictures and sounds."""
ESTIMATE_MARGIN = 1.15
"""Factor on the activations, for tensors that exist only briefly; measured (tests/unit/engine/test_footprint.py)."""
UPDATE_COPIES = 2
"""Copies of all trained tensors that an optimizer makes for a moment while it moves them; those of AdamW."""
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux keeps the memory limit of a container."""
NO_LIMIT = 1 << 62
"""More bytes than any machine has."""


@dataclass(frozen=True)
class Footprint:
    """What one member takes besides the base, in bytes."""

    parameters: int
    """Its trained tensors."""
    state: int
    """These with their gradients, the optimizer's state and, if it looks back, their copy."""
    copies: int
    """Its trained tensors in half precision, which each forward makes and keeps for the backward."""
    per_row: float
    """Activations that a row of a micro-batch keeps for the backward, with the gradient of the largest of them."""

    def activations(self, rows: int, members: int = 1) -> int:
        """Bytes of the activations of ``members`` such members in a micro-batch of ``rows`` rows."""
        return int(ESTIMATE_MARGIN * members * (self.copies + rows * self.per_row))

    def bytes(self, rows: int, members: int = 1) -> int:
        """Bytes at the peak of a step: while micro-batches of ``rows`` rows run, or while the optimizer moves."""
        return members * self.state + max(self.activations(rows, members), members * UPDATE_COPIES * self.parameters)


def measure_footprint(base: Base, member: MemberSpec, batch: Batch) -> Footprint:
    """The footprint of ``member``, whose activations are measured in one forward on ``batch``, each storage once."""
    with Pack(base, [Member(member)]) as pack:
        known = {key for parameter in base.model.parameters() for key, _ in _storages(parameter)}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            kept.update((key, size) for key, size in _storages(tensor) if key not in known)
            return tensor

        pack.position.training = True
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = pack.token_sums(batch).nats_K
        del loss
        trained = [factor.parameter for _, _, factor in pack.factors()]
        state = sum(_state_bytes(pack, parameter) for parameter in trained)
    copies = sum(parameter.numel() for parameter in trained) * base.dtype.itemsize if base.dtype in HALF else 0
    inputs = sum(value.nbytes for value in batch.inputs.values() if isinstance(value, Tensor))
    largest = max(kept.values(), default=0)  # of it a gradient and a copy exist at a time
    per_row = (max(sum(kept.values()) - copies, 0) + 2 * largest + 2 * inputs) / batch.num_rows
    return Footprint(sum(parameter.nbytes for parameter in trained), state, copies, per_row)


def _storages(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the storages of a tensor: several if it wraps others, as quantised ones of torchao do."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _storages(getattr(tensor, name))
    else:
        storage = tensor.untyped_storage()
        yield storage.data_ptr(), storage.nbytes()


def _state_bytes(pack: Pack, parameter: Tensor) -> int:
    """Bytes of a trained tensor, its gradient, its optimizer state, and its copy while the optimizer looks back."""
    assert pack.optimizer is not None
    return parameter.nbytes * (2 + pack.optimizer.needs_two_points + len(pack.optimizer.buffers(parameter)))


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


def combine_largest(members: Sequence[MemberSpec]) -> MemberSpec:
    """A member with the largest rank of every part and the highest dropout: no member takes more memory."""
    largest = members[0].allocation
    for member in members[1:]:
        ranks = {part: max(rank, largest.get(part)) for part, rank in member.allocation.ranks}
        largest = largest.replace(**ranks)
    most_dropout = max(members, key=lambda member: member.dropout or 0.0)
    return most_dropout.model_copy(update={"allocation": largest})
