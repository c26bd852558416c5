"""How far a member is: everything a checkpoint holds, as a value that is replaced and never changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from marslora.adapters import Checkpoint, read_checkpoint, write_checkpoints
from marslora.core.errors import StudyError
from marslora.core.runs import Cost, MemberResult, Observation, Status
from marslora.core.spec import MemberSpec
from marslora.engine.pack import Base, Member

Points = tuple[tuple[int, str, float], ...]
"""(examples, metric, value) of everything seen."""


@dataclass(frozen=True)
class RunState:
    """One member between two optimizer steps."""

    member: Member
    examples: int = 0
    status: Status = "running"
    message: str = ""
    points: Points = ()
    cost: Cost = field(default_factory=Cost)
    """Since the run to ``until_examples`` was asked for."""
    train_loss_sum: float = 0.0
    """Over the steps since the last validation."""
    train_steps: int = 0

    @property
    def spec(self) -> MemberSpec:
        """The member's."""
        return self.member.spec

    @property
    def is_running(self) -> bool:
        """Whether there is anything left to do."""
        return self.status == "running"

    def observations(self) -> tuple[Observation, ...]:
        """Everything seen so far."""
        return tuple(
            Observation(member=self.spec.id, examples=examples, metric=metric, value=value)
            for examples, metric, value in self.points
        )

    def result(self) -> MemberResult:
        """How the member ended."""
        return MemberResult(
            member=self.spec.id, status=self.status, examples=self.examples, message=self.message, cost=self.cost
        )


def read_state(root: Path, spec: MemberSpec) -> RunState:
    """The progress in ``root/<member id>``, or a fresh start; `StudyError` for the checkpoint of another run."""
    found = read_checkpoint(root / spec.id)
    if found is None:
        return _finished_if_there(RunState(Member(spec)))
    state = found.state
    before = MemberSpec.parse(state["spec"], str(root / spec.id))
    if _identity(before) != _identity(spec):
        raise StudyError(
            f"{root / spec.id} holds a run of {before.allocation} with seed {before.seed} on {before.data_examples} "
            f"rows; asked for is {spec.allocation}, seed {spec.seed}, {spec.data_examples} rows. Use another folder."
        )
    same_request = before.until_examples == spec.until_examples
    progress = RunState(
        member=Member(spec, found.weights, found.moments, state["step"]),
        examples=state["examples"],
        status="diverged" if state["status"] == "diverged" else "running",
        message=state["message"],
        points=tuple((examples, metric, value) for examples, metric, value in state["points"]),
        cost=Cost.parse(state["cost"]) if same_request else Cost(),
        train_loss_sum=state["train_loss_sum"],
        train_steps=state["train_steps"],
    )
    return _finished_if_there(progress)


def write_states(root: Path, base: Base, members: list[RunState]) -> None:
    """Write the members' checkpoints; after a crash either all of these are there or all of the ones before."""
    write_checkpoints(
        root, {progress.spec.id: (_checkpoint(progress), base.lora_settings(progress.spec)) for progress in members}
    )


def _finished_if_there(progress: RunState) -> RunState:
    there = progress.is_running and progress.examples >= progress.spec.until_examples and progress.points
    return replace(progress, status="complete") if there else progress


def _identity(spec: MemberSpec) -> MemberSpec:
    """What a continued run must have in common with the one before."""
    return spec.model_copy(update={"until_examples": 0, "purpose": ""})


def _checkpoint(progress: RunState) -> Checkpoint:
    state: dict[str, Any] = {
        "examples": progress.examples,
        "step": progress.member.step,
        "status": progress.status,
        "message": progress.message,
        "seed": progress.spec.seed,
        "spec": progress.spec.model_dump(mode="json"),
        "points": progress.points,
        "cost": progress.cost.model_dump(mode="json"),
        "train_loss_sum": progress.train_loss_sum,
        "train_steps": progress.train_steps,
    }
    return Checkpoint(progress.member.weights, progress.member.moments, state)
