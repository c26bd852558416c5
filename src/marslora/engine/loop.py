"""Train members in packs until each has seen all its examples: segments, validation, checkpoints, cost.

Members of one `PackSpec` may stand at different points and end at different points. A *segment* is a stretch that some
of them cross together: from the point where they stand to the next one at which a member ends or another is met.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from marslora.core.runs import Cost, Emit, ProgressEvent
from marslora.core.schedule import evaluation_steps, num_steps
from marslora.core.spec import PackSpec
from marslora.core.stopping import defer_signals
from marslora.data.encode import EncodedRows
from marslora.data.rows import EncodedSplits, iterate_batches_by_length
from marslora.engine import memory, run_state
from marslora.engine.cost import CostMeter, split_cost
from marslora.engine.evaluate import Scores, evaluate
from marslora.engine.pack import Base, Pack
from marslora.engine.run_state import RunState
from marslora.engine.speedups import Speedups
from marslora.engine.step import StepResult, train_step

CHECKPOINT_SECONDS = 20.0
"""Seconds between checkpoints, which is the most that a killed run loses. Writing one takes well under a second."""
PROGRESS_SECONDS = 0.5
"""The least seconds between two progress events; more frequent ones would not be noticed."""


@dataclass(frozen=True)
class Segment:
    """Members that stand at one point and go on together."""

    indices: tuple[int, ...]
    """Which members of the loop."""
    start: int
    """Examples that each of them has seen before the segment."""
    stop: int
    """Examples that each of them has seen after it."""


def next_segment(members: Sequence[RunState], batch_size: int, largest_pack: int) -> Segment | None:
    """The segment to train next; None when every member has ended.

    The members that have seen the fewest examples continue, in whole batches, until one of them ends or they catch up
    with others. A member that ends inside a batch takes its last, smaller step without the others.
    """
    running = [index for index, member in enumerate(members) if member.is_running]
    if not running:
        return None
    start = min(members[index].examples for index in running)
    hindmost = [index for index in running if members[index].examples == start]
    end = min(members[index].spec.until_examples for index in hindmost)
    stop = end // batch_size * batch_size
    if stop <= start:
        stop = end
        hindmost = [index for index in hindmost if members[index].spec.until_examples == end]
    hindmost = hindmost[: _choose_pack_size(len(hindmost), largest_pack)]
    ahead = [members[index].examples for index in running if members[index].examples > start]
    return Segment(tuple(hindmost), start, min([stop, *ahead]))


def _choose_pack_size(count: int, limit: int) -> int:
    """The size of the first pack when ``count`` members are split into the fewest packs of nearly equal size."""
    packs = -(-count // limit)
    return -(-count // packs)


@dataclass
class PackLoop:
    """The members of one `PackSpec` from their first to their last example."""

    spec: PackSpec
    base: Base
    rows: EncodedSplits[EncodedRows]
    speedups: Speedups
    emit: Emit
    members: list[RunState]
    """As they stood at the last checkpoint."""
    largest_pack: int
    """How many members fit into memory at once; halved when memory runs out."""
    meter: CostMeter = field(default_factory=CostMeter)
    measure_updates: bool = False
    """Whether validation points also record the norm of each part's last update, which takes a copy of all factors."""
    cost: Cost = field(default_factory=Cost)
    _reported_at: float = 0.0

    @property
    def root(self) -> Path:
        """The folder of the checkpoints."""
        return Path(self.spec.checkpoint_folder)

    def run(self) -> None:
        """Train until every member has ended; the result of each is emitted as it ends."""
        self.measure_start()
        batch_size = self.spec.training.batch_size
        while (segment := next_segment(self.members, batch_size, self.largest_pack)) is not None:
            try:
                SegmentRun(self, segment).run()
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error) or len(segment.indices) == 1:
                    raise
            else:
                continue
            self.largest_pack = len(segment.indices) // 2
            _release_cached_memory()

    def measure_start(self) -> None:
        """Record the first validation point of fresh members: for all of them it is the untouched model's."""
        fresh = [index for index, member in enumerate(self.members) if not member.points and member.is_running]
        if not fresh:
            return
        scores = self.validate_untouched_model()
        cost = split_cost(self.meter.take(), len(fresh))
        self.cost += Cost(seconds=cost.seconds * len(fresh), flops=cost.flops * len(fresh), peak_bytes=cost.peak_bytes)
        for index in fresh:
            member = replace(self.members[index], cost=self.members[index].cost + cost)
            self.members[index] = self.observe(member, _list_scores(scores, 0))

    def validate_untouched_model(self) -> Scores:
        """The scores of the model without any adapter, as those of one member."""
        with self.speedups.apply(self.base, 1, ()):
            return self._validate(None)

    def validate_pack(self, pack: Pack) -> Scores:
        """The scores of the members of a pack that is in place, with its speedups."""
        return self._validate(pack)

    def _validate(self, pack: Pack | None) -> Scores:
        training = self.spec.training
        batch_size = 2 * max(1, training.batch_size // training.accumulation)  # twice: nothing is kept for a backward
        batches = iterate_batches_by_length(self.rows.validation, batch_size)
        kind = ("validation", pack.signature if pack else None)
        tokens = int(self.rows.validation.num_tokens.sum())
        return self.speedups.run_metered(
            lambda: evaluate(self.base, batches, pack), self.meter, kind=kind, tokens=tokens
        )

    def observe(self, member: RunState, points: Sequence[tuple[str, float]]) -> RunState:
        """The member with more ``(metric, value)`` points at the examples it has seen; they are emitted too."""
        member = replace(member, points=(*member.points, *((member.examples, name, value) for name, value in points)))
        for observation in member.observations()[-len(points) :]:
            self.emit(observation)
        return member

    def report_progress(self, members: Sequence[RunState]) -> None:
        """Emit how many examples the members have seen and their lowest loss, at most once in `PROGRESS_SECONDS`."""
        if time.monotonic() - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = time.monotonic()
            done = sum(member.examples for member in members)
            total = sum(member.spec.until_examples for member in members)
            losses = [loss for member in members if (loss := member.last_loss) is not None]
            detail = f"lowest validation loss {min(losses):.3f}" if losses else ""
            self.emit(ProgressEvent(task=self.spec.id, done=done, total=total, detail=detail))


class SegmentRun:
    """One segment while it runs: a pack, and the states of its members as they go on."""

    def __init__(self, loop: PackLoop, segment: Segment):
        self.loop, self.segment = loop, segment
        self.now = [loop.members[index] for index in segment.indices]
        self.is_alive_K = torch.ones(len(self.now), dtype=torch.bool)
        training = loop.spec.training
        self.batch_size = training.batch_size
        self.total_steps = num_steps(loop.spec.full_examples, training.batch_size)
        self.validate_after = set(evaluation_steps(self.total_steps, training.evaluations))

    def run(self) -> None:
        """Train the segment; the loop's members are replaced at every checkpoint and at the end."""
        loop, base = self.loop, self.loop.base
        members = [member.member for member in self.now]
        saved = time.monotonic()
        with (
            Pack(base, members) as pack,
            loop.speedups.apply(base, len(members), pack.parts),
            defer_signals() as stop,
        ):
            for examples, step, batches in self._steps():
                result = self._step(pack, examples, step, batches)
                self._record_losses(examples, result)
                if any(self._find_due(examples, step + 1)):
                    self._validate(pack, examples, step + 1, result)
                loop.report_progress(self._current_members())
                is_due = bool(stop) or time.monotonic() - saved >= CHECKPOINT_SECONDS
                if is_due and examples < self.segment.stop:
                    self._save(pack, step + 1)
                    saved = time.monotonic()
                    stop.raise_if_asked()
                if not self.is_alive_K.any():
                    break
            self._finish(pack)
            stop.raise_if_asked()

    def _current_members(self) -> list[RunState]:
        """All members of the loop, those of this segment as they stand now."""
        others = [m for index, m in enumerate(self.loop.members) if index not in self.segment.indices]
        return [*others, *self.now]

    def _steps(self) -> Iterator[tuple[int, int, list[dict[str, Tensor]]]]:
        """(examples seen after it, number from 0, micro-batches) of every step."""
        first, segment = self.now[0].spec, self.segment
        examples = segment.start
        steps = self.loop.rows.micro_batches(
            self.loop.spec.training, first.order_seed, segment.start, segment.stop, first.data_examples
        )
        for batches in steps:
            step = examples // self.batch_size
            examples = min(examples + self.batch_size, segment.stop)
            yield examples, step, batches

    def _step(self, pack: Pack, examples: int, step: int, batches: list[dict[str, Tensor]]) -> StepResult:
        """Take step ``step``, after which every member has seen ``examples`` examples."""
        measure_updates = self.loop.measure_updates and any(self._find_due(examples, step + 1))
        pack.position.step = step
        pack.set_rates(step, self.total_steps)
        moved = [self.loop.base.batch(batch) for batch in batches]
        return self.loop.speedups.run_metered(
            lambda: train_step(pack, moved, self.is_alive_K, measure_updates=measure_updates),
            self.loop.meter,
            kind=("training", pack.signature),
            tokens=sum(batch.labels_BT.numel() for batch in moved),
        )

    def _find_due(self, examples: int, step: int) -> list[bool]:
        """Which members are validated after ``step`` steps: all at the common points, and each at its own end."""
        return [
            bool(self.is_alive_K[k]) and (step in self.validate_after or member.spec.until_examples == examples)
            for k, member in enumerate(self.now)
        ]

    def _record_losses(self, examples: int, result: StepResult) -> None:
        """Add a step's losses to the members' states; freeze the members whose loss or gradient is not finite."""
        for k, member in enumerate(self.now):
            if not self.is_alive_K[k]:
                continue
            if result.is_finite_K[k]:
                self.now[k] = replace(
                    member,
                    examples=examples,
                    train_loss_sum=member.train_loss_sum + float(result.loss_K[k]),
                    train_steps=member.train_steps + 1,
                )
            else:
                self._freeze(k, f"training loss or gradient became NaN or infinite after {examples} examples")

    def _freeze(self, k: int, message: str) -> None:
        self.is_alive_K[k] = False
        self.now[k] = replace(self.now[k], status="diverged", message=message)

    def _validate(self, pack: Pack, examples: int, step: int, result: StepResult) -> None:
        """Record the scores of the members that are due, with the mean training loss since their last point."""
        due = self._find_due(examples, step)
        scores = self.loop.validate_pack(pack)
        for k, member in enumerate(self.now):
            if not due[k]:
                continue
            points = [*_list_scores(scores, k), ("train_loss", member.train_loss_sum / max(member.train_steps, 1))]
            points += [(f"update_norm.{part}", float(norms_K[k])) for part, norms_K in result.update_norms_K.items()]
            fresh = replace(member, train_loss_sum=0.0, train_steps=0)
            self.now[k] = self.loop.observe(fresh, points)
            if not scores.loss_K[k].isfinite():
                self._freeze(k, f"validation loss became NaN or infinite after {examples} examples")

    def _finish(self, pack: Pack) -> None:
        for k, member in enumerate(self.now):
            if member.is_running and member.examples >= member.spec.until_examples:
                self.now[k] = replace(member, status="complete")
        self._save(pack, -(-self.segment.stop // self.batch_size))
        for member in self.now:
            if not member.is_running:
                self.loop.emit(member.result())

    def _save(self, pack: Pack, step: int) -> None:
        """Write the members' checkpoints and make them the loop's members."""
        loop = self.loop
        spent = loop.meter.take()
        seen = sum(m.examples - loop.members[i].examples for m, i in zip(self.now, self.segment.indices, strict=True))
        loop.cost += spent + Cost(examples=seen)
        for k, (index, member) in enumerate(zip(self.segment.indices, pack.copy_members(step), strict=True)):
            examples = self.now[k].examples - loop.members[index].examples
            own = split_cost(spent, len(self.now)) + Cost(examples=examples)
            self.now[k] = replace(self.now[k], member=member, cost=self.now[k].cost + own)
            loop.members[index] = self.now[k]
        run_state.write_states(loop.root, loop.base, self.now)


def _list_scores(scores: Scores, member: int) -> list[tuple[str, float]]:
    """(metric, value) of one member's scores."""
    return [
        ("validation_loss", float(scores.loss_K[member])),
        ("validation_accuracy", float(scores.accuracy_K[member])),
    ]


def _release_cached_memory() -> None:
    """Give the memory that torch keeps for reuse back to the device, before a smaller pack is tried."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
