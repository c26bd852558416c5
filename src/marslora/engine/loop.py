"""Train members in packs until each has seen its examples: segments, validation, checkpoints, cost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from marslora.core.runs import Cost, Event, ProgressEvent
from marslora.core.schedule import evaluation_steps, num_steps
from marslora.core.spec import PackSpec
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
PROGRESS_SECONDS = 0.5
Emit = Callable[[Event], None]


@dataclass(frozen=True)
class Segment:
    """Members at one point that go on together."""

    indices: tuple[int, ...]
    start: int
    stop: int
    """Examples seen, before and after."""


def next_segment(members: Sequence[RunState], batch_size: int, largest_pack: int) -> Segment | None:
    """What to train next, None when everybody is done.

    Those that have seen least go on, in whole batches, until one of them is done or they reach others. A run that
    ends inside a batch takes its last, shorter step without the others.
    """
    running = [index for index, member in enumerate(members) if member.is_running]
    if not running:
        return None
    start = min(members[index].examples for index in running)
    here = [index for index in running if members[index].examples == start]
    end = min(members[index].spec.until_examples for index in here)
    stop = end // batch_size * batch_size
    if stop <= start:
        stop = end
        here = [index for index in here if members[index].spec.until_examples == end]
    here = here[: _even_share(len(here), largest_pack)]
    ahead = [members[index].examples for index in running if members[index].examples > start]
    return Segment(tuple(here), start, min([stop, *ahead]))


def _even_share(count: int, limit: int) -> int:
    """The size of the first of the fewest packs of nearly equal size."""
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
    largest_pack: int
    meter: CostMeter = field(default_factory=CostMeter)
    cost: Cost = field(default_factory=Cost)
    _reported_at: float = 0.0

    @property
    def root(self) -> Path:
        """Where checkpoints live."""
        return Path(self.spec.checkpoint_folder)

    def run(self) -> None:
        """Train until nobody is left; members' results are emitted as they end."""
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
            _forget_garbage()

    def measure_start(self) -> None:
        """The first validation point of fresh members: all of them still are the untouched model."""
        fresh = [index for index, member in enumerate(self.members) if not member.points and member.is_running]
        if not fresh:
            return
        scores = self.validate(None)
        cost = split_cost(self.meter.take(), len(fresh))
        self.cost += Cost(seconds=cost.seconds * len(fresh), flops=cost.flops * len(fresh), peak_bytes=cost.peak_bytes)
        for index in fresh:
            member = replace(self.members[index], cost=self.members[index].cost + cost)
            self.members[index] = self.observe(member, _score_points(scores, 0))

    def validate(self, pack: Pack | None) -> Scores:
        """The scores of a pack's members, or of the untouched model."""
        batches = iterate_batches_by_length(self.rows.validation, self.batch_size_of_validation)
        kind = ("validation", pack.signature if pack else None)
        tokens = int(self.rows.validation.num_tokens.sum())
        with contextlib.nullcontext() if pack else self.speedups.apply(self.base, 1, ()):
            return self.speedups.run_metered(
                lambda: evaluate(self.base, batches, pack), self.meter, kind=kind, tokens=tokens
            )

    @property
    def batch_size_of_validation(self) -> int:
        """Rows of a validation batch: twice a micro-batch, since nothing is kept for a backward."""
        training = self.spec.training
        return 2 * max(1, training.batch_size // training.accumulation)

    def observe(self, member: RunState, points: Sequence[tuple[str, float]]) -> RunState:
        """The member with more points, which are emitted."""
        member = replace(member, points=(*member.points, *((member.examples, name, value) for name, value in points)))
        for observation in member.observations()[-len(points) :]:
            self.emit(observation)
        return member

    def report_progress(self, done: int) -> None:
        """Say how far the pack is, twice a second at most."""
        if time.monotonic() - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = time.monotonic()
            total = sum(member.spec.until_examples for member in self.members)
            self.emit(ProgressEvent(task=self.spec.id, done=done, total=total))


class SegmentRun:
    """One segment: the pack, and its members' progress as it goes on."""

    def __init__(self, loop: PackLoop, segment: Segment):
        self.loop, self.segment = loop, segment
        self.now = [loop.members[index] for index in segment.indices]
        self.is_alive_K = torch.ones(len(self.now), dtype=torch.bool)
        training = loop.spec.training
        self.batch_size = training.batch_size
        self.total_steps = num_steps(loop.spec.full_examples, training.batch_size)
        self.validate_after = set(evaluation_steps(self.total_steps, training.evaluations))

    def run(self) -> None:
        """Train the segment; the loop's members are replaced at each checkpoint and at the end."""
        loop, base = self.loop, self.loop.base
        members = [member.member for member in self.now]
        saved = time.monotonic()
        with Pack(base, members) as pack, loop.speedups.apply(base, len(members), pack.parts):
            for examples, step, batches in self._steps():
                measure = self._is_due(examples, step + 1)
                self._after(examples, self._step(pack, step, batches, measure))
                if any(self._due(examples, step + 1)):
                    self._validate(pack, examples, step + 1)
                loop.report_progress(self._seen_by_all())
                if time.monotonic() - saved >= CHECKPOINT_SECONDS and examples < self.segment.stop:
                    self._save(pack, step + 1)
                    saved = time.monotonic()
                if not self.is_alive_K.any():
                    break
            self._finish(pack)

    def _seen_by_all(self) -> int:
        """Examples of all members of the loop: of those in the segment as they stand now."""
        others = [m for index, m in enumerate(self.loop.members) if index not in self.segment.indices]
        return sum(member.examples for member in [*others, *self.now])

    def _steps(self) -> Iterator[tuple[int, int, list[dict[str, Tensor]]]]:
        """(examples seen after it, its number, micro-batches) of every step."""
        first, segment = self.now[0].spec, self.segment
        examples = segment.start
        steps = self.loop.rows.micro_batches(
            self.loop.spec.training, first.order_seed, segment.start, segment.stop, first.data_examples
        )
        for batches in steps:
            step = examples // self.batch_size
            examples = min(examples + self.batch_size, segment.stop)
            yield examples, step, batches

    def _step(self, pack: Pack, step: int, batches: list[dict[str, Tensor]], measure: bool) -> StepResult:
        pack.clock.step = step
        pack.set_rates(step, self.total_steps)
        moved = [self.loop.base.batch(batch) for batch in batches]
        return self.loop.speedups.run_metered(
            lambda: train_step(pack, moved, self.is_alive_K, measure_updates=measure),
            self.loop.meter,
            kind=("training", pack.signature),
            tokens=sum(batch.labels_BT.numel() for batch in moved),
        )

    def _is_due(self, examples: int, step: int) -> bool:
        return any(self._due(examples, step))

    def _due(self, examples: int, step: int) -> list[bool]:
        """Which members are validated after ``step`` steps: at the common points, and each at its own end."""
        return [
            bool(self.is_alive_K[k]) and (step in self.validate_after or member.spec.until_examples == examples)
            for k, member in enumerate(self.now)
        ]

    def _after(self, examples: int, result: StepResult) -> None:
        """Take a step's losses into the members' progress; freeze those that are no numbers any more."""
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
                self._freeze(k, f"the training loss or its gradient became no number at {examples} examples")
        self._updates = result.update_norms_K

    def _freeze(self, k: int, message: str) -> None:
        self.is_alive_K[k] = False
        self.now[k] = replace(self.now[k], status="diverged", message=message)

    def _validate(self, pack: Pack, examples: int, step: int) -> None:
        due = self._due(examples, step)
        scores = self.loop.validate(pack)
        for k, member in enumerate(self.now):
            if not due[k]:
                continue
            points = [*_score_points(scores, k), ("train_loss", member.train_loss_sum / max(member.train_steps, 1))]
            points += [(f"update_norm.{part}", float(norms_K[k])) for part, norms_K in self._updates.items()]
            fresh = replace(member, train_loss_sum=0.0, train_steps=0)
            self.now[k] = self.loop.observe(fresh, points)
            if not scores.loss_K[k].isfinite():
                self._freeze(k, f"the validation loss became no number at {examples} examples")

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
        for k, (index, copy_members) in enumerate(zip(self.segment.indices, pack.copy_members(step), strict=True)):
            own = split_cost(spent, len(self.now)) + Cost(examples=self.now[k].examples - loop.members[index].examples)
            self.now[k] = replace(self.now[k], member=copy_members, cost=self.now[k].cost + own)
            loop.members[index] = self.now[k]
        run_state.write_states(loop.root, loop.base, self.now)


def _score_points(scores: Scores, member: int) -> list[tuple[str, float]]:
    return [
        ("validation_loss", float(scores.loss_K[member])),
        ("validation_accuracy", float(scores.accuracy_K[member])),
    ]


def _forget_garbage() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
