"""How much memory a member takes, how many members fit, and which errors mean that memory ran out."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from marslora.core.packs import GPU_SHARE
from marslora.core.spec import MemberSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.models.answers import Batch

SHARE = 0.7
"""Share of the free memory that a pack may take: the estimate is rough, and remembered features need room as well."""
PROCESSOR_TOKENS = 4096
"""The most tokens of all members in one batch on a CPU; with more, its caches overflow and packing gets slower
(benchmarks/packed_speed.py)."""
ESTIMATE_MARGIN = 1.25
"""Factor on the measured activations, for tensors that exist only briefly during a backward; a convention."""
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux keeps the memory limit of a container."""
NO_LIMIT = 1 << 62
"""More bytes than any machine has."""
ALLOCATOR_MESSAGES = ("not enough memory", "can't allocate memory", "out of memory")
"""What the RuntimeErrors of torch's CPU allocator (on Windows, on Linux) and of some CUDA libraries say."""


def largest_pack(base: Base, members: Sequence[MemberSpec], batch: Batch, max_bytes: int | None) -> int:
    """How many members may train together in ``max_bytes``, at least 1; each is counted as the largest of them.

    Without ``max_bytes``, `SHARE` of the memory that is free now. On a CPU also no more than its caches can hold.
    """
    room = SHARE * free_bytes(base.device) if max_bytes is None else max_bytes
    fitting = math.floor(room / member_bytes(base, _combine_largest(members), batch))
    if base.device.type == "cpu":
        fitting = min(fitting, PROCESSOR_TOKENS // batch.labels_BT.numel())
    return max(1, fitting)


def member_bytes(base: Base, member: MemberSpec, batch: Batch) -> int:
    """Bytes that one member adds to the base: its tensors, gradients, optimizer state, and activations for a backward.

    The activations are measured in one forward, each storage once, and multiplied by `ESTIMATE_MARGIN`.
    """
    with Pack(base, [Member(member)]) as pack:
        known = {p.untyped_storage().data_ptr() for p in base.model.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        pack.position.training = True
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = pack.token_sums(batch).nats_K
        del loss
        trained = sum(_trained_bytes(pack, factor.parameter) for _, _, factor in pack.factors())
    inputs = sum(value.nbytes for value in batch.inputs.values() if isinstance(value, Tensor))
    return int(ESTIMATE_MARGIN * sum(kept.values()) + trained + 2 * inputs)


def _trained_bytes(pack: Pack, parameter: Tensor) -> int:
    """Bytes of a trained tensor, its gradient, its optimizer state, and its copy while the optimizer looks back."""
    assert pack.optimizer is not None
    return parameter.nbytes * (2 + pack.optimizer.needs_two_points + len(pack.optimizer.buffers(parameter)))


def free_bytes(device: torch.device) -> int:
    """Bytes that this process could still take on ``device``, within its share of a GPU or its container's limit."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own = int(float(os.environ.get(GPU_SHARE, "1")) * total) - torch.cuda.memory_reserved(device)
        return max(0, min(free, own))
    return min(int(psutil.virtual_memory().available), _container_free_bytes())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a device or in this process."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in ALLOCATOR_MESSAGES)


def _container_free_bytes() -> int:
    try:
        limit: Any = (CGROUP / "memory.max").read_text().strip()
        return int(limit) - int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or no limit ("max")
        return NO_LIMIT


def _combine_largest(members: Sequence[MemberSpec]) -> MemberSpec:
    """A member with the largest rank of every part and the highest dropout: no member takes more memory."""
    largest = members[0].allocation
    for member in members[1:]:
        ranks = {part: max(rank, largest.get(part)) for part, rank in member.allocation.ranks}
        largest = largest.replace(**ranks)
    most_dropout = max(members, key=lambda member: member.dropout or 0.0)
    return most_dropout.model_copy(update={"allocation": largest})
