"""The entry point of the engine: a `PackSpec` in, observations and results out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from marslora.adapters import recover_checkpoints
from marslora.core.errors import MarsloraError, StudyError
from marslora.core.out_of_memory import explain_out_of_memory, is_out_of_memory
from marslora.core.runs import Cost, Emit, Failure, PackResult
from marslora.core.spec import MemberSpec, PackSpec
from marslora.data.encode import EncodedRows
from marslora.data.rows import EncodedSplits, load_encoded_splits, pick_heavy
from marslora.engine import run_state
from marslora.engine.check import keeps_members_apart
from marslora.engine.cost import CostMeter
from marslora.engine.flops import count_flops
from marslora.engine.loop import PackLoop, may_split
from marslora.engine.memory import Footprint, combine_largest, measure_footprint
from marslora.engine.pack import Base
from marslora.engine.planning import Limits, PackPlan, plan_pack
from marslora.engine.prepare import probe_parts
from marslora.engine.run_state import RunState
from marslora.engine.speedups import Speedups
from marslora.models import loading
from marslora.models.answers import AnswerHead, Batch
from marslora.models.memory import MEASURED_ROWS, SHARE, free_bytes

TOWER_SHARE = 0.25
"""Share of the free memory that remembered features may take; packs may take more (`marslora.models.memory.SHARE`)."""


def run_pack(spec: PackSpec, emit: Emit, *, measure_updates: bool = False) -> None:
    """Train the members of ``spec``, each from its checkpoint if it has one, and emit what is measured.

    Emits an `Observation` for every number, a `MemberResult` for every member and a `PackResult` at the end, or a
    `Failure` instead. The observations of a member found in ``checkpoint_folder`` are emitted again. Checkpoints are
    written every 20 seconds and when members end; after a kill the next call continues from them and ends with the same
    numbers. With ``measure_updates`` each validation point also has an observation ``update_norm.PART`` for every
    part: the norm of its last update. It costs a copy of all trained tensors at these steps.
    """
    try:
        with explain_out_of_memory("a pack of runs was prepared", spec.training):
            _run(spec, emit, measure_updates)
    except (MarsloraError, RuntimeError, MemoryError, OSError) as error:
        emit(Failure.of(spec, error))


def _run(spec: PackSpec, emit: Emit, measure_updates: bool) -> None:
    meter = CostMeter()
    root = Path(spec.checkpoint_folder)
    recover_checkpoints(root, [member.id for member in spec.members])
    members = [run_state.read_state(root, member) for member in spec.members]
    for member in members:
        _check_continues(member, spec.training.batch_size)
    for member in members:
        for observation in member.observations():
            emit(observation)
        if not member.is_running:
            emit(member.result())
    loaded = loading.load(spec.model)
    loop = None
    if any(member.is_running for member in members):
        loop = _build_loop(spec, loaded, members, emit, meter)
        loop.measure_updates = measure_updates
        loop.run()
    results = tuple(member.result() for member in (loop.members if loop else members))
    cost = loop.cost if loop else Cost()
    emit(PackResult(pack=spec.id, members=results, cost=cost, device=find_device_name(loaded.device)))


def _check_continues(member: RunState, batch_size: int) -> None:
    if member.is_running and member.examples % batch_size:
        raise StudyError(
            f"{member.spec.id} cannot continue to {member.spec.until_examples} examples, because it ended inside a "
            f"batch, after {member.examples}. Start it in another checkpoint folder, and let it end at a multiple of "
            f"{batch_size} examples."
        )


def _build_loop(
    spec: PackSpec, loaded: loading.LoadedModel, members: list[RunState], emit: Emit, meter: CostMeter
) -> PackLoop:
    rows = load_encoded_splits(spec.data, loaded.processor, spec.cache_folder, splits=("train", "validation"))
    info = probe_parts(spec.model, loaded, rows, spec.cache_folder)
    for part in {part for member in spec.members for part in member.allocation.active}:
        info.part(part)
    base = Base(loaded.model, info, spec.training, loaded.device, loaded.dtype, AnswerHead(loaded.model))
    speedups = Speedups.of(base, int(TOWER_SHARE * free_bytes(base.device)))
    first = base.batch(_first_batch(spec, rows))
    running = tuple(member.spec for member in members if member.is_running)

    def prepare_packs() -> PackPlan:
        speedups.find_used_outputs(base, first)
        is_packable = len(running) > 1 and _keeps_members_apart(base, running, first)
        longest = rows.train.batch(pick_heavy(rows.train, MEASURED_ROWS))
        return _plan(spec, base, speedups, running, base.batch(longest), len(running) if is_packable else 1)

    plan, flops = count_flops(prepare_packs)
    meter.add_flops(flops)
    speedups.recompute = plan.recompute
    return PackLoop(spec, base, rows, speedups, emit, members, plan, meter)


def _keeps_members_apart(base: Base, running: tuple[MemberSpec, ...], batch: Batch) -> bool:
    """As `keeps_members_apart`; False if memory is too small to find out, where one may still fit."""
    try:
        return keeps_members_apart(base, running, batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return False


def _plan(
    spec: PackSpec, base: Base, speedups: Speedups, running: tuple[MemberSpec, ...], longest: Batch, at_once: int
) -> PackPlan:
    """The plan for members of which ``at_once`` may train together, measured on the longest rows."""
    training = spec.training
    limits = Limits(
        members=at_once,
        batch_size=training.batch_size,
        pieces=min(training.accumulation, training.batch_size),
        may_split=may_split(spec),
        bytes=SHARE * free_bytes(base.device) if spec.max_bytes is None else spec.max_bytes,
        on_cpu=base.device.type == "cpu",
        row_tokens=longest.labels_BT.shape[1],
    )

    def measure(recompute: bool) -> Footprint:
        way = dataclasses.replace(speedups, recompute=recompute or training.gradient_checkpointing)
        with way.apply(base, 1, base.modules(running)):
            return measure_footprint(base, combine_largest(running), longest)

    plan = plan_pack(measure, limits)
    return dataclasses.replace(plan, recompute=plan.recompute or training.gradient_checkpointing)


def _first_batch(spec: PackSpec, rows: EncodedSplits[EncodedRows]) -> dict[str, torch.Tensor]:
    """A micro-batch of the training rows that has every kind of picture and sound."""
    size = max(1, spec.training.batch_size // spec.training.accumulation)
    return rows.train.batch(rows.train.pick_varied(size))


def find_device_name(device: torch.device) -> str:
    """The device's name for people, e.g. ``NVIDIA H200`` or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
