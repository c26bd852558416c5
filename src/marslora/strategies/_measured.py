"""Decisions that rest on observation alone: the lowest validation loss wins. For grids, random search and halving."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.runs import Run
from marslora.strategies._base import Problem, total_cost, usable
from marslora.strategies.uniform import nearest_to_uniform

FALLBACK_RANK = 16


def longest(runs: Sequence[Run], rows: int) -> dict[Allocation, Run]:
    """The furthest usable run of each allocation on ``rows`` rows."""
    found: dict[Allocation, Run] = {}
    for run in runs:
        allocation = run.member.allocation
        if usable(run) and run.member.data_examples == rows:
            known = found.get(allocation)
            if known is None or run.last_examples > known.last_examples:
                found[allocation] = run
    return found


def leader(seen: dict[Allocation, Run], candidates: Sequence[Allocation]) -> Allocation | None:
    """The candidate of lowest loss among those that got furthest; None where nothing was seen."""
    runs = {allocation: seen[allocation] for allocation in candidates if allocation in seen}
    if not runs:
        return None
    furthest = max(run.last_examples for run in runs.values())
    finalists = {allocation: run for allocation, run in runs.items() if run.last_examples >= 0.99 * furthest}
    return min(finalists, key=lambda allocation: finalists[allocation].best_loss)


def decide_by_loss(
    strategy: str, problem: Problem, runs: Sequence[Run], assumptions: Sequence[str], next_steps: Sequence[str]
) -> DecisionRecord:
    """The candidate with the lowest validation loss among those that got furthest."""
    candidates, seen = problem.candidates(), longest(runs, problem.num_train)
    found = leader(seen, candidates)
    chosen = found or nearest_to_uniform(problem, FALLBACK_RANK)
    entries = tuple(_entry(problem, allocation, chosen, seen) for allocation in candidates)
    fallback = None if found else f"no run could be used, so the candidate nearest to rank {FALLBACK_RANK} was taken"
    return DecisionRecord(
        strategy=strategy,
        chosen=chosen,
        verdict="fallback" if fallback else "clear",
        summary=f"{chosen}: {fallback}." if fallback else _lowest(chosen, seen[chosen]),
        candidates=entries,
        plausible=(chosen,) if found else (),
        fallback=fallback,
        continue_run=seen[chosen].member.id if found else None,
        calibration=total_cost(runs),
        calibration_full_runs=problem.spent(runs),
        assumptions=tuple(assumptions),
        next_steps=tuple(next_steps),
    )


def _lowest(chosen: Allocation, run: Run) -> str:
    return f"{chosen} has the lowest validation loss, {run.best_loss:.4f} within {run.last_examples} examples."


def _entry(problem: Problem, allocation: Allocation, chosen: Allocation, seen: dict[Allocation, Run]) -> Candidate:
    run, best = seen.get(allocation), seen.get(chosen)
    if allocation == chosen:
        status, reason = (
            "chosen",
            "lowest validation loss of those trained furthest" if run else "nothing could be measured",
        )
    elif run is None:
        status, reason = "dropped", "not measured, or its run could not be used"
    elif best is not None and run.last_examples >= 0.99 * best.last_examples:
        status, reason = "kept", f"{run.best_loss - best.best_loss:.4f} nats worse than {chosen} at the same length"
    else:
        status, reason = (
            "dropped",
            f"stopped after {run.last_examples} examples at loss {run.best_loss:.4f}: others were lower",
        )
    return Candidate.model_validate(
        {
            "allocation": allocation,
            "status": status,
            "reason": reason,
            "num_trainable": problem.count_parameters(allocation),
            "observed_loss": min(run.validation_loss) if run else None,
            "observed_examples": run.last_examples if run else None,
        }
    )
