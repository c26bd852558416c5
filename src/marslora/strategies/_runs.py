"""Runs against what was asked of them: which are unfinished, how they stood at a given length, what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from marslora.core.runs import Cost, Run
from marslora.core.spec import MemberSpec


def select_unfinished(wanted: Iterable[MemberSpec], runs: Sequence[Run]) -> list[MemberSpec]:
    """The wanted members that have not been trained as far as they should and still can be."""
    by_id = {run.member.id: run for run in runs}
    return [member for member in wanted if not _is_finished(member, by_id.get(member.id))]


def _is_finished(member: MemberSpec, run: Run | None) -> bool:
    if run is None or run.status == "running":
        return False
    if run.status in ("diverged", "failed", "stopped") or run.last_examples >= member.until_examples:
        return True
    return run.status == "complete" and run.member.until_examples >= member.until_examples


def cut_runs(members: Iterable[MemberSpec], runs: Sequence[Run]) -> list[Run]:
    """The runs of these members, each without the points beyond its member's ``until_examples``.

    A strategy that re-enacts an earlier round needs what was known then: the runs may have been continued since.
    """
    by_id = {run.member.id: run for run in runs}
    return [_cut_run(by_id[member.id], member) for member in members if member.id in by_id]


def _cut_run(run: Run, member: MemberSpec) -> Run:
    if run.last_examples <= member.until_examples:
        return run
    num = sum(examples <= member.until_examples for examples in run.examples)
    num_train = sum(examples <= member.until_examples for examples in run.train_examples)
    return run.model_copy(
        update={
            "member": member,
            "status": "complete",
            "examples": run.examples[:num],
            "validation_loss": run.validation_loss[:num],
            "train_examples": run.train_examples[:num_train],
            "train_loss": run.train_loss[:num_train],
        }
    )


def is_usable(run: Run) -> bool:
    """Whether the run has a finite loss beyond its start and did not fail or diverge."""
    return run.last_examples > 0 and run.status != "failed" and run.last_loss < float("inf")


def sum_costs(runs: Iterable[Run]) -> Cost:
    """What the runs cost together."""
    total = Cost()
    for run in runs:
        total += run.cost if run.cost.examples else run.cost.model_copy(update={"examples": run.last_examples})
    return total
