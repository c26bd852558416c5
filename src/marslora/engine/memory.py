"""How much memory a member takes, and how many members fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from marslora.core.spec import MemberSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.models.answers import Batch

SHARE = 0.7
"""Of the free memory that a pack may take."""
PROCESSOR_TOKENS = 4096
"""Tokens of all members in a batch beyond which a processor, once busy, only gets slower (benchmarks/packed_speed)."""
CGROUP = Path("/sys/fs/cgroup")


def largest_pack(base: Base, members: Sequence[MemberSpec], batch: Batch, max_bytes: int | None) -> int:
    """How many members may train together, at least 1: each counted as the largest, ``max_bytes`` for all of them.

    None: a share of the memory that is free now. On a processor no more than its caches can hold, either.
    """
    room = SHARE * free_bytes(base.device) if max_bytes is None else max_bytes
    fitting = math.floor(room / member_bytes(base, _largest(members), batch))
    if base.device.type == "cpu":
        fitting = min(fitting, PROCESSOR_TOKENS // batch.labels_BT.numel())
    return max(1, fitting)


def member_bytes(base: Base, member: MemberSpec, batch: Batch) -> int:
    """Bytes that one member adds to the base: its tensors, gradients, optimizer state, and what a backward keeps.

    Kept activations are measured in one forward, each storage once; a quarter more is for what comes and goes.
    """
    with Pack(base, [Member(member)]) as pack:
        known = {p.untyped_storage().data_ptr() for p in base.model.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        pack.clock.training = True
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = pack.token_sums(batch).nats_K
        del loss
        trained = sum(_trained_bytes(pack, factor.parameter) for _, _, factor in pack.factors())
    inputs = sum(value.nbytes for value in batch.inputs.values() if isinstance(value, Tensor))
    return int(1.25 * sum(kept.values()) + trained + 2 * inputs)


def _trained_bytes(pack: Pack, parameter: Tensor) -> int:
    """A trained tensor with its gradient, its optimizer state, and its place while the optimizer looks back."""
    assert pack.optimizer is not None
    return parameter.nbytes * (2 + pack.optimizer.needs_two_points + len(pack.optimizer.buffers(parameter)))


def free_bytes(device: torch.device) -> int:
    """Memory that this process could still take on ``device``; a container's limit counts."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(int(psutil.virtual_memory().available), _container_room())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or for the process."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error).lower()


def _container_room() -> int:
    try:
        limit: Any = (CGROUP / "memory.max").read_text().strip()
        return int(limit) - int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or no limit ("max")
        return 1 << 62


def _largest(members: Sequence[MemberSpec]) -> MemberSpec:
    """One member with the largest rank of every part: nobody takes more."""
    largest = members[0].allocation
    for member in members[1:]:
        ranks = {part: max(rank, largest.get(part)) for part, rank in member.allocation.ranks}
        largest = largest.replace(**ranks)
    most_dropout = max(members, key=lambda member: member.dropout or 0.0)
    return most_dropout.model_copy(update={"allocation": largest})
