"""Train members in packs until each has seen all its examples: segments, validation, checkpoints, cost.

Where members stand together, they cross a *segment* together (`marslora.engine.segments`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from marslora.core.out_of_memory import advise, describe_shortage, is_out_of_memory
from marslora.core.record import digest_texts
from marslora.core.runs import Cost, Emit, ProgressEvent
from marslora.core.schedule import evaluation_steps, few_evaluation_steps, num_steps
from marslora.core.spec import MemberSpec, PackSpec
from marslora.core.stopping import defer_signals
from marslora.data.encode import EncodedRows
from marslora.data.rows import EncodedSplits, iterate_batches_by_length
from marslora.engine import run_state
from marslora.engine.cost import CostMeter, split_cost
from marslora.engine.evaluate import Scores, digest_weights, evaluate, read_scores, write_scores
from marslora.engine.pack import Base, Pack
from marslora.engine.planning import PackPlan
from marslora.engine.run_state import RunState
from marslora.engine.segments import Segment, next_segment
from marslora.engine.speedups import Speedups
from marslora.engine.step import StepResult, train_step

CHECKPOINT_SECONDS = 20.0
"""Seconds between checkpoints, which is the most that a killed run loses. Writing one takes well under a second."""
PROGRESS_SECONDS = 0.5
"""The least seconds between two progress events; more frequent ones would not be noticed."""


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
    plan: PackPlan
    """How packs are computed; a smaller one takes its place when memory runs out."""
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
        while (segment := next_segment(self.members, batch_size, self.plan.members)) is not None:
            try:
                SegmentRun(self, segment).run()
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = str(error)  # its traceback holds what fills the memory
            _release_cached_memory()
            smaller = self.plan.shrink(len(segment.indices), batch_size, may_split=may_split(self.spec))
            if smaller is None:
                alone = f"{self.members[segment.indices[0]].spec.id} was trained alone"
                tried = {"accumulation": self.plan.pieces, "gradient_checkpointing": self.plan.recompute}
                raise describe_shortage(alone, MemoryError(said), advise(self.spec.training.model_copy(update=tried)))
            self.plan, self.speedups.recompute = smaller, smaller.recompute

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
        """The scores of the model without any adapter, as those of one member. A study measures them once."""
        spec, base = self.spec, self.base
        what = (spec.model.digest(), digest_weights(base.model), self.rows.validation.digest, str(base.dtype))
        how = (base.device.type, str(self._validation_batch))
        path = Path(spec.cache_folder) / f"untouched-{digest_texts(*what, *how)}.json"
        if (known := read_scores(path)) is not None:
            return known
        with self.speedups.apply(base, 1, ()):
            scores = self._validate(None)
        self.cost += Cost(validation_examples=len(self.rows.validation))
        write_scores(path, scores)
        return scores

    @property
    def _validation_batch(self) -> int:
        """Rows of a validation batch: twice those of training, since nothing is kept for a backward."""
        training = self.spec.training
        return 2 * max(1, training.batch_size // training.accumulation)

    def validate_pack(self, pack: Pack) -> Scores:
        """The scores of the members of a pack that is in place, with its speedups."""
        return self._validate(pack)

    def _validate(self, pack: Pack | None) -> Scores:
        batches = iterate_batches_by_length(self.rows.validation, self._validation_batch)
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
        regular = evaluation_steps(self.total_steps, training.evaluations)
        self.regular = frozenset(regular)
        self.few = frozenset(few_evaluation_steps(regular, training.batch_size, len(loop.rows.validation)))
        self._context = contextlib.ExitStack()

    def run(self) -> None:
        """Train the segment; the loop's members are replaced at every checkpoint and at the end."""
        loop, base = self.loop, self.loop.base
        pack = Pack(base, [member.member for member in self.now])
        saved = time.monotonic()
        with self._context, defer_signals() as stop:
            self._put_in_place(pack, self._context)
            for examples, step, batches in self._steps():
                result = self._step(pack, examples, step, batches)
                self._record_losses(examples, result)
                self._observe(pack, examples, step + 1, result)
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
        training = self.loop.spec.training.model_copy(update={"accumulation": self.loop.plan.pieces})
        steps = self.loop.rows.micro_batches(
            training, first.order_seed, segment.start, segment.stop, first.data_examples
        )
        for batches in steps:
            step = examples // self.batch_size
            examples = min(examples + self.batch_size, segment.stop)
            yield examples, step, batches

    def _step(self, pack: Pack, examples: int, step: int, batches: list[dict[str, Tensor]]) -> StepResult:
        """Take step ``step``, after which every member has seen ``examples`` examples."""
        measure_updates = self.loop.measure_updates and bool(self._find_observed(examples, step + 1))
        pack.position.step = step
        pack.set_rates(step, self.total_steps)
        moved = [self.loop.base.batch(batch) for batch in batches]
        return self.loop.speedups.run_metered(
            lambda: train_step(pack, moved, self.is_alive_K, measure_updates=measure_updates),
            self.loop.meter,
            kind=("training", pack.signature),
            tokens=sum(batch.labels_BT.numel() for batch in moved),
        )

    def _find_observed(self, examples: int, step: int) -> list[int]:
        """The members with a point after ``step`` steps: all at the regular ones, and each at its own end."""
        return [
            k
            for k, member in enumerate(self.now)
            if self.is_alive_K[k] and (step in self.regular or member.spec.until_examples == examples)
        ]

    def _find_due(self, examples: int, step: int) -> list[int]:
        """Those of them that are validated there, as `MemberSpec.validations` says."""
        return [k for k in self._find_observed(examples, step) if self._is_validated(self.now[k].spec, examples, step)]

    def _is_validated(self, spec: MemberSpec, examples: int, step: int) -> bool:
        if spec.validations == "few":
            return step in self.few
        return spec.validations == "regular" or spec.until_examples == examples

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

    def _observe(self, pack: Pack, examples: int, step: int, result: StepResult) -> None:
        """Record the mean training losses since the last regular point, and the scores of those that are due.

        At its own end a member keeps the sum: if it goes on, the next regular point is as if it had not ended.
        """
        scores = self._score(pack, self._find_due(examples, step), step)
        for k in self._find_observed(examples, step):
            member = self.now[k]
            points = [*scores.get(k, ()), ("train_loss", member.train_loss_sum / max(member.train_steps, 1))]
            points += [(f"update_norm.{part}", float(norms_K[k])) for part, norms_K in result.update_norms_K.items()]
            if k in scores:
                member = replace(member, cost=member.cost + Cost(validation_examples=len(self.loop.rows.validation)))
            if step in self.regular:
                member = replace(member, train_loss_sum=0.0, train_steps=0)
            self.now[k] = self.loop.observe(member, points)
            if k in scores and not math.isfinite(scores[k][0][1]):
                self._freeze(k, f"validation loss became NaN or infinite after {examples} examples")

    def _score(self, pack: Pack, due: list[int], step: int) -> dict[int, list[tuple[str, float]]]:
        """The scores of the members that are due, by index. If others are not, those due are scored in a pack of their
        own, so that the others cost nothing."""
        if not due:
            return {}
        if len(due) == pack.num_members:
            scores = self.loop.validate_pack(pack)
        else:
            self._context.close()
            some = pack.copy_some(due, step)
            with contextlib.ExitStack() as context:
                self._put_in_place(some, context)
                scores = self.loop.validate_pack(some)
            self._put_in_place(pack, self._context)
        return {k: _list_scores(scores, place) for place, k in enumerate(due)}

    def _put_in_place(self, pack: Pack, context: contextlib.ExitStack) -> None:
        """Put the adapters of ``pack`` into the model, with its speedups, until ``context`` ends."""
        context.enter_context(pack)
        context.enter_context(self.loop.speedups.apply(self.loop.base, pack.num_members, pack.parts))

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
        pairs = [(m, loop.members[i]) for m, i in zip(self.now, self.segment.indices, strict=True)]
        seen = sum(now.examples - before.examples for now, before in pairs)
        scored = sum(now.cost.validation_examples - before.cost.validation_examples for now, before in pairs)
        loop.cost += spent + Cost(examples=seen, validation_examples=scored)
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


def may_split(spec: PackSpec) -> bool:
    """Whether the number of micro-batches is free: dropout draws a mask for each."""
    return not spec.training.dropout and not any(member.dropout for member in spec.members)


def _release_cached_memory() -> None:
    """Give the memory that torch keeps for reuse back to the device, before a smaller pack is tried."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
