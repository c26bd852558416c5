"""The state of a member between two optimizer steps: what a checkpoint holds, as a value that is never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from marslora.adapters import Checkpoint, read_checkpoint, write_checkpoints
from marslora.core.errors import StudyError
from marslora.core.runs import Cost, MemberResult, Observation, Status
from marslora.core.spec import MemberSpec
from marslora.engine.pack import Base, Member

Points = tuple[tuple[int, str, float], ...]
"""(examples, metric, value) of every observation."""


@dataclass(frozen=True)
class RunState:
    """One member between two optimizer steps."""

    member: Member
    examples: int = 0
    status: Status = "running"
    message: str = ""
    points: Points = ()
    cost: Cost = field(default_factory=Cost)
    """What was spent since the run to ``until_examples`` was requested."""
    train_loss_sum: float = 0.0
    """Sum of the training losses of the steps since the last regular point."""
    train_steps: int = 0
    """Steps since the last regular point."""

    @property
    def spec(self) -> MemberSpec:
        """The specification of the member."""
        return self.member.spec

    @property
    def is_running(self) -> bool:
        """Whether the member still has examples to see."""
        return self.status == "running"

    @property
    def last_loss(self) -> float | None:
        """The latest validation loss; None before the first."""
        losses = (value for _, metric, value in reversed(self.points) if metric == "validation_loss")
        return next(losses, None)

    def observations(self) -> tuple[Observation, ...]:
        """Everything observed so far, in order."""
        return tuple(
            Observation(member=self.spec.id, examples=examples, metric=metric, value=value)
            for examples, metric, value in self.points
        )

    def result(self) -> MemberResult:
        """How the member ended, with its cost."""
        return MemberResult(
            member=self.spec.id, status=self.status, examples=self.examples, message=self.message, cost=self.cost
        )


def read_state(root: Path, spec: MemberSpec) -> RunState:
    """The state in ``root/<member id>``, or a fresh one; `StudyError` if the checkpoint is another run's."""
    checkpoint = read_checkpoint(root / spec.id)
    if checkpoint is None:
        return _complete_if_finished(RunState(Member(spec)))
    saved = checkpoint.state
    before = MemberSpec.parse(saved["spec"], str(root / spec.id))
    if _identity(before) != _identity(spec):
        raise StudyError(
            f"{root / spec.id} holds a run of {before.setting} with seed {before.seed} on {before.data_examples} "
            f"rows, but {spec.setting} with seed {spec.seed} on {spec.data_examples} rows was requested. "
            "Use another folder."
        )
    same_request = before.until_examples == spec.until_examples
    state = RunState(
        member=Member(spec, checkpoint.weights, checkpoint.moments, saved["step"]),
        examples=saved["examples"],
        status="diverged" if saved["status"] == "diverged" else "running",
        message=saved["message"],
        points=_read_points(saved, goes_on=spec.until_examples > before.until_examples),
        cost=Cost.parse(saved["cost"]) if same_request else Cost(),
        train_loss_sum=saved["train_loss_sum"],
        train_steps=saved["train_steps"],
    )
    return _complete_if_finished(state)


def _read_points(saved: Mapping[str, Any], *, goes_on: bool) -> Points:
    """The points of a checkpoint. Where a run between two regular points ended, its last training loss is a mean up to
    there; a run that goes on has the mean up to the next regular point instead."""
    ended = saved["examples"] if goes_on and saved["train_steps"] else None
    points = ((examples, metric, value) for examples, metric, value in saved["points"])
    return tuple(point for point in points if point[:2] != (ended, "train_loss"))


def write_states(root: Path, base: Base, members: list[RunState]) -> None:
    """Write the members' checkpoints; after a crash either all the new ones are there or all the old ones."""
    write_checkpoints(root, {state.spec.id: (_checkpoint(state), base.lora_settings(state.spec)) for state in members})


def _complete_if_finished(state: RunState) -> RunState:
    is_finished = state.is_running and state.examples >= state.spec.until_examples and state.points
    return replace(state, status="complete") if is_finished else state


def _identity(spec: MemberSpec) -> MemberSpec:
    """The part of a specification that a continued run must have in common with the run it continues."""
    return spec.model_copy(update={"until_examples": 0, "purpose": "", "validations": "regular"})


def _checkpoint(state: RunState) -> Checkpoint:
    saved: dict[str, Any] = {
        "examples": state.examples,
        "step": state.member.step,
        "status": state.status,
        "message": state.message,
        "seed": state.spec.seed,
        "spec": state.spec.model_dump(mode="json"),
        "points": state.points,
        "cost": state.cost.model_dump(mode="json"),
        "train_loss_sum": state.train_loss_sum,
        "train_steps": state.train_steps,
    }
    return Checkpoint(state.member.weights, state.member.moments, saved)
