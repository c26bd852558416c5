"""Inspect a model on real rows: which of its parts would learn from them, and how much memory that takes.

`marslora.inspect` and ``marslora inspect --probe`` end here; the forward and backward is `marslora.models.probe.probe`.
"""

from __future__ import annotations

import math

from marslora.core.allocation import Allocation
from marslora.core.parts import PACK_MEMBERS, ModelInfo, PartInfo
from marslora.core.runs import Emit, Prepared, collect_answer
from marslora.core.spec import DataSpec, MemberSpec, ModelSpec, PrepareSpec, TrainingSpec
from marslora.data.rows import load_encoded_splits, pick_heavy
from marslora.engine.memory import measure_footprint
from marslora.engine.pack import Base
from marslora.engine.planning import Limits, plan_pack
from marslora.engine.prepare import PROBE_ROWS, prepare
from marslora.models import loading
from marslora.models.answers import AnswerHead, Batch
from marslora.models.memory import MEASURED_ROWS


def inspect_model(
    model: ModelSpec, data: DataSpec, cache_folder: str, rank: int, emit: Emit = lambda _: None
) -> ModelInfo:
    """The model's parts after one forward and backward on the first training rows, with the memory at ``rank``.

    Fills ``gradient_norm``, ``frozen`` and ``member_bytes`` of the parts, ``dead`` of the linears, ``warnings``, and
    the bytes of the model, of a run and of a pack.
    Raises what loading the model and the data raises.
    """
    info = _prepare(model, data, cache_folder, emit).info
    loaded = loading.load(model)
    rows = load_encoded_splits(data, loaded.processor, cache_folder, splits=("train",))
    longest = rows.train.batch(pick_heavy(rows.train, MEASURED_ROWS))

    def measure_memory(*parts: PartInfo, members: int = 1) -> int | None:
        """Bytes of runs that adapt these parts, with default options; parts without a linear are trained whole."""
        if not any(part.whole for part in parts):
            return None
        training = TrainingSpec(full=tuple(part.name for part in parts if not part.linears))
        base = Base(loaded.model, info, training, loaded.device, loaded.dtype, AnswerHead(loaded.model))
        ranks = {part.name: rank for part in parts if part.alive}
        member = MemberSpec(id="probe", allocation=Allocation.of(ranks), data_examples=1, until_examples=1)
        return _bytes_of_plan(base, member, base.batch(longest), members)

    parts = tuple(part.model_copy(update={"member_bytes": measure_memory(part)}) for part in info.parts)
    adapted = [part for part in info.parts if part.alive]
    return info.model_copy(
        update={
            "parts": parts,
            "base_bytes": sum(tensor.nbytes for tensor in loaded.model.state_dict().values()),
            "member_bytes": measure_memory(*adapted),
            "pack_bytes": measure_memory(*adapted, members=PACK_MEMBERS),
        }
    )


def _bytes_of_plan(base: Base, member: MemberSpec, batch: Batch, members: int) -> int:
    """Bytes of ``members`` such members as a study would train them, in as many micro-batches as it would plan."""
    footprint, size = measure_footprint(base, member, batch), base.training.batch_size
    on_cpu, row_tokens = base.device.type == "cpu", batch.labels_BT.shape[1]
    plan = plan_pack(lambda _: footprint, Limits(members, size, 1, True, math.inf, on_cpu, row_tokens))
    return footprint.bytes(-(-size // plan.pieces), plan.members)


def _prepare(model: ModelSpec, data: DataSpec, cache_folder: str, emit: Emit) -> Prepared:
    spec = PrepareSpec(model=model, data=data, batch_size=PROBE_ROWS, cache_folder=cache_folder)
    return collect_answer(lambda receive: prepare(spec, receive), Prepared, "the preparation", emit)
