"""Decisions that rest on observation alone: the lowest validation loss wins. For grids, random search and halving."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.runs import Run
from marslora.core.setting import Setting
from marslora.strategies._problem import Problem
from marslora.strategies._runs import is_usable, sum_costs
from marslora.strategies._uniform import find_nearest_uniform

FALLBACK_RANK = 16
"""The rank of every part if nothing could be measured. A convention: a common default of LoRA."""
SAME_LENGTH = 0.99
"""Runs of at least this share of the longest one count as equally long: lengths are rounded to whole batches."""


def find_furthest_runs(runs: Sequence[Run], rows: int) -> dict[Setting, Run]:
    """The furthest usable run of each setting on ``rows`` rows."""
    furthest: dict[Setting, Run] = {}
    for run in runs:
        setting = run.member.setting
        if is_usable(run) and run.member.data_examples == rows:
            known = furthest.get(setting)
            if known is None or run.last_examples > known.last_examples:
                furthest[setting] = run
    return furthest


def find_lowest(furthest: dict[Setting, Run], candidates: Sequence[Setting]) -> Setting | None:
    """The candidate of lowest loss among those trained furthest; None if none was trained."""
    runs = {setting: furthest[setting] for setting in candidates if setting in furthest}
    if not runs:
        return None
    longest = max(run.last_examples for run in runs.values())
    finalists = {setting: run for setting, run in runs.items() if run.last_examples >= SAME_LENGTH * longest}
    return min(finalists, key=lambda setting: finalists[setting].best_loss)


def decide_by_loss(
    strategy: str, problem: Problem, runs: Sequence[Run], assumptions: Sequence[str], next_steps: Sequence[str]
) -> DecisionRecord:
    """The candidate with the lowest validation loss among those trained furthest.

    ``strategy`` is the name of the strategy; ``assumptions`` and ``next_steps`` are sentences for the report.
    """
    candidates, furthest = problem.candidates(), find_furthest_runs(runs, problem.num_train)
    lowest = find_lowest(furthest, candidates)
    chosen = lowest or problem.at_middle_rate(find_nearest_uniform(problem, FALLBACK_RANK))
    entries = tuple(_describe_candidate(problem, setting, chosen, furthest) for setting in candidates)
    fallback = None if lowest else f"no run could be used, so the candidate nearest to rank {FALLBACK_RANK} was taken"
    return DecisionRecord(
        strategy=strategy,
        chosen=chosen.allocation,
        learning_rate=chosen.learning_rate,
        part_learning_rates=dict(chosen.part_learning_rates),
        verdict="fallback" if fallback else "clear",
        summary=f"{chosen}: {fallback}." if fallback else _summarise(chosen, furthest[chosen]),
        candidates=entries,
        plausible=(chosen,) if lowest else (),
        fallback=fallback,
        continue_run=furthest[chosen].member.id if lowest else None,
        calibration=sum_costs(runs),
        calibration_full_runs=problem.spent(runs),
        assumptions=tuple(assumptions),
        next_steps=tuple(next_steps),
    )


def _summarise(chosen: Setting, run: Run) -> str:
    return f"{chosen} has the lowest validation loss, {run.best_loss:.4f} within {run.last_examples} examples."


def _describe_candidate(problem: Problem, setting: Setting, chosen: Setting, furthest: dict[Setting, Run]) -> Candidate:
    run, best = furthest.get(setting), furthest.get(chosen)
    if setting == chosen:
        status = "chosen"
        reason = "lowest validation loss of those trained furthest" if run else "nothing could be measured"
    elif run is None:
        status, reason = "dropped", "not measured, or its run could not be used"
    elif best is not None and run.last_examples >= SAME_LENGTH * best.last_examples:
        status, reason = "kept", f"{run.best_loss - best.best_loss:.4f} nats worse than {chosen} at the same length"
    else:
        status = "dropped"
        reason = f"stopped after {run.last_examples} examples at loss {run.best_loss:.4f}: others were lower"
    return Candidate.model_validate(
        {
            "allocation": setting.allocation,
            "learning_rate": setting.learning_rate,
            "part_learning_rates": dict(setting.part_learning_rates),
            "status": status,
            "reason": reason,
            "num_trainable": problem.count_parameters(setting.allocation),
            "observed_loss": min(run.validation_loss) if run else None,
            "observed_examples": run.last_examples if run else None,
        }
    )
