"""From an analysis of the runs to the decision that people read: every candidate with its numbers and a reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.runs import Run
from marslora.laws import measure_interval
from marslora.strategies._analysis import Analysis
from marslora.strategies._lowest_loss import FALLBACK_RANK, find_furthest_runs
from marslora.strategies._problem import Problem
from marslora.strategies._runs import sum_costs
from marslora.strategies._uniform import find_nearest_uniform

ALIKE_SHARE = 0.06
"""Rank does not matter if all candidates are tied and each has an expected regret of at most this share of the loss.

Chosen by hand, with the tables of benchmarks/tables in view.
"""
MAX_RIVALS = 3
"""Rivals of the choice that the next steps name."""
IMBALANCE_GAIN = 0.95
"""Imbalance predicts loss if it lowers the held-out error below this share of that without it. A convention."""


def write_decision(strategy: str, problem: Problem, runs: Sequence[Run], analysis: Analysis) -> DecisionRecord:
    """The decision that an analysis implies."""
    seen = _find_furthest_allocations(problem, runs)
    laws = (*analysis.convergence_laws.values(), analysis.performance_law) if len(analysis.candidates) > 1 else ()
    chosen, fallback = _pick_chosen(problem, analysis, seen)
    verdict = "fallback" if analysis.choice is None else "clear" if analysis.choice.is_clear else "indistinguishable"
    plausible = [analysis.candidates[c] for c in analysis.choice.plausible] if analysis.choice else [chosen]
    entries = tuple(_describe_candidate(problem, analysis, c, chosen, seen) for c in range(len(analysis.candidates)))
    return DecisionRecord.model_validate(
        {
            "strategy": strategy,
            "chosen": chosen,
            "learning_rate": problem.middle_rate,
            "verdict": verdict,
            "summary": _summarise(analysis, chosen, fallback, len(plausible)),
            "candidates": entries,
            "plausible": tuple(map(problem.at_middle_rate, plausible)),
            "fallback": fallback,
            "laws": laws,
            "closed_forms": analysis.closed_forms,
            "continue_run": seen[chosen].member.id if chosen in seen else None,
            "calibration": sum_costs(runs),
            "calibration_full_runs": problem.spent(runs),
            "assumptions": tuple(_list_assumptions(problem, analysis)),
            "next_steps": tuple(_list_next_steps(analysis, chosen, seen)),
        }
    )


def _find_furthest_allocations(problem: Problem, runs: Sequence[Run]) -> dict[Allocation, Run]:
    """The furthest run of each allocation at the one learning rate at which ranks are compared."""
    furthest = find_furthest_runs(runs, problem.num_train)
    settings = {allocation: problem.at_middle_rate(allocation) for allocation in problem.allocations()}
    return {allocation: furthest[setting] for allocation, setting in settings.items() if setting in furthest}


def _pick_chosen(problem: Problem, analysis: Analysis, seen: dict[Allocation, Run]) -> tuple[Allocation, str | None]:
    """The chosen allocation, and what was done instead if the laws could not decide."""
    notes = []
    laws = analysis.convergence_laws
    if failed := [f"{part} ({law.message})" for part, law in laws.items() if law.status == "failed"]:
        notes.append(f"nothing was dropped for imbalance: no convergence law for {', '.join(failed)}")
    if analysis.is_contradicted:
        notes.append(
            "the data contradict the balance hypothesis: an unbalanced allocation is predicted to be better than every "
            "balanced one, so all were considered"
        )
    if analysis.choice is not None:
        return analysis.candidates[analysis.choice.chosen], "; ".join(notes) or None
    if len(analysis.candidates) == 1:
        return analysis.candidates[0], "it is the only allocation, so there was nothing to compare"
    eligible = [analysis.candidates[c] for c in np.flatnonzero(analysis.kept_C)]
    lowest = min((each for each in eligible if each in seen), key=lambda each: seen[each].best_loss, default=None)
    if lowest is not None:
        notes.append(f"no performance law ({analysis.performance_law.message}), so the lowest observed loss was taken")
        return lowest, "; ".join(notes)
    notes.append(f"no candidate run could be used, so the candidate nearest to rank {FALLBACK_RANK} was taken")
    return find_nearest_uniform(problem, FALLBACK_RANK), "; ".join(notes)


def _describe_candidate(
    problem: Problem, analysis: Analysis, c: int, chosen: Allocation, seen: dict[Allocation, Run]
) -> Candidate:
    allocation = analysis.candidates[c]
    kept = bool(analysis.kept_C[c]) or analysis.is_contradicted
    run = seen.get(allocation)
    losses, choice, times = analysis.predictions, analysis.choice, analysis.predicted_times
    return Candidate(
        allocation=allocation,
        learning_rate=problem.middle_rate,
        status="chosen" if allocation == chosen else "kept" if kept else "dropped",
        reason=_explain_status(analysis, c, chosen, kept),
        num_trainable=problem.count_parameters(allocation),
        convergence_examples=times.times_of(c) if times else {},
        imbalance=times.imbalance_of(c) if times else None,
        predicted_loss=measure_interval(float(losses.loss_C[c]), losses.loss_SC[:, c]) if losses else None,
        observed_loss=min(run.validation_loss) if run else None,
        observed_examples=run.last_examples if run else None,
        p_best=float(choice.p_best_C[c]) if choice else None,
        expected_regret=float(choice.regret_C[c]) if choice else None,
    )


def _explain_status(analysis: Analysis, c: int, chosen: Allocation, kept: bool) -> str:
    """Why this candidate is what it is, with its numbers."""
    words = [analysis.predicted_times.describe_imbalance(c)] if analysis.predicted_times else []
    if analysis.choice is None:
        words.append("no performance law compares it with the others")
    elif not kept:
        words.insert(0, "out of balance")
    else:
        words.append(f"probability {analysis.choice.p_best_C[c]:.2f} of being best")
        words.append(f"expected regret {analysis.choice.regret_C[c]:.4f} nats")
    if analysis.candidates[c] == chosen and analysis.choice is not None:
        words.insert(0, _explain_choice(analysis))
    return "; ".join(words)


def _explain_choice(analysis: Analysis) -> str:
    choice = analysis.choice
    assert choice is not None
    if choice.chosen == choice.best:
        return "the allocation with the least expected loss"
    if choice.chosen == choice.tied[0]:
        return f"the cheapest of {len(choice.tied)} allocations that cannot be told apart"
    return "as good as the allocation with the least expected loss, and cheaper"


def _summarise(analysis: Analysis, chosen: Allocation, fallback: str | None, num_plausible: int) -> str:
    choice = analysis.choice
    if choice is None:
        return f"{chosen}: {fallback}."
    p_best, regret = choice.p_best_C[choice.chosen], choice.regret_C[choice.chosen]
    odds = f"probability {p_best:.0%}, expected regret {regret:.4f} nats per answer token"
    if choice.is_clear:
        text = f"{chosen} is the best choice: {odds}."
        if num_plausible > 1:
            text += f" {num_plausible} allocations hold 90 % of the probability of being best."
    else:
        num = len(choice.tied)
        text = (
            f"{num} of {len(analysis.candidates)} allocations cannot be told from the best with a probability of 90 %; "
            f"of these {chosen} is {_explain_choice(analysis)} ({odds})."
        )
        if num == len(analysis.candidates):
            text = f"{_explain_ties(analysis)}: {text}"
    return f"{text} Note: {fallback}." if fallback else text


def _explain_ties(analysis: Analysis) -> str:
    """Whether the allocations are alike, or too little was measured to see how they differ."""
    assert analysis.choice is not None and analysis.predictions is not None
    share = float(analysis.choice.regret_C.max()) / float(analysis.predictions.loss_C.min())
    if share <= ALIKE_SHARE:
        return f"Rank does not matter here: any allocation is expected to end within {share:.1%} of the best one's loss"
    return (
        f"Too little was measured: as far as can be seen, an allocation may end {share:.0%} of the loss above the best"
    )


def _list_assumptions(problem: Problem, analysis: Analysis) -> list[str]:
    words = [
        "calibration ran at a constant learning rate; the final run's decay is assumed to help every allocation alike",
        "t examples of training are treated as t rows of data, also beyond the first pass over the rows",
        "one seed for each allocation: half of each residual is taken for seed noise",
    ]
    if analysis.convergence_laws:
        words.append(
            f"a part counts as converged at {analysis.share:.0%} of the way to the loss that curves on the same "
            f"rows reach in a full run; measured alone on fewer rows, its time is carried to {problem.num_train} rows"
        )
        laws = analysis.convergence_laws.items()
        words += [f"{part}: {law.message}" for part, law in laws if law.status == "unidentified"]
    law = analysis.performance_law
    if law.status == "unidentified":
        words.append(f"performance: {law.message}")
    scores = {**law.alternatives, law.variant: law.held_out_error}
    if "imbalance" in scores and "multiplicative" in scores:
        helps = scores["imbalance"] < IMBALANCE_GAIN * scores["multiplicative"]
        words.append(
            f"imbalance of convergence {'does' if helps else 'does not'} predict loss beyond rank here: held-out error "
            f"{scores['imbalance']:.4f} with it, {scores['multiplicative']:.4f} without"
        )
    return words


def _list_next_steps(analysis: Analysis, chosen: Allocation, seen: dict[Allocation, Run]) -> list[str]:
    steps = []
    if analysis.choice is not None and len(analysis.choice.plausible) > 1:
        rivals = [each for c in analysis.choice.plausible if (each := analysis.candidates[c]) != chosen]
        names = ", ".join(map(str, rivals[:MAX_RIVALS]))
        furthest = max((run.last_examples for run in seen.values()), default=0)
        steps.append(
            f"to separate {chosen} from {names}: train each for more than {furthest} examples, or with further seeds"
        )
    if any(law.status == "failed" for law in analysis.convergence_laws.values()):
        steps.append("raise the budget, so that the runs of single parts converge")
    if analysis.choice is None:
        steps.append("raise the budget, or find out why the candidate runs failed")
    return steps
