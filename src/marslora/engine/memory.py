"""How much memory a member of a pack takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from marslora.core.spec import MemberSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.models.answers import Batch
from marslora.models.memory import ESTIMATE_MARGIN, UPDATE_COPIES, measure_kept
from marslora.models.precision import HALF


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
        moving = members * UPDATE_COPIES * self.parameters
        return members * self.state + max(self.activations(rows, members), moving)


def measure_footprint(base: Base, member: MemberSpec, batch: Batch) -> Footprint:
    """The footprint of ``member``, whose activations are measured in one forward on ``batch``."""
    with Pack(base, [Member(member)]) as pack:
        pack.position.training = True
        kept = measure_kept(lambda: pack.nats(batch), base.model.parameters())
        trained = [factor.parameter for _, _, factor in pack.factors()]
        state = sum(_state_bytes(pack, parameter) for parameter in trained)
    copies = sum(parameter.numel() for parameter in trained) * base.dtype.itemsize if base.dtype in HALF else 0
    inputs = sum(value.nbytes for value in batch.inputs.values() if isinstance(value, Tensor))
    per_row = (max(kept.total - copies, 0) + 2 * kept.largest + 2 * inputs) / batch.num_rows
    return Footprint(sum(parameter.nbytes for parameter in trained), state, copies, per_row)


def _state_bytes(pack: Pack, parameter: Tensor) -> int:
    """Bytes of a trained tensor, its gradient, its optimizer state, and its copy while the optimizer looks back."""
    assert pack.optimizer is not None
    return parameter.nbytes * (2 + pack.optimizer.needs_two_points + len(pack.optimizer.buffers(parameter)))


def combine_largest(members: Sequence[MemberSpec]) -> MemberSpec:
    """A member with the largest rank of every part and the highest dropout: no member takes more memory."""
    largest = members[0].allocation
    for member in members[1:]:
        ranks = {part: max(rank, largest.get(part)) for part, rank in member.allocation.ranks}
        largest = largest.replace(**ranks)
    most_dropout = max(members, key=lambda member: member.dropout or 0.0)
    return most_dropout.model_copy(update={"allocation": largest})
