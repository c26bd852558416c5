"""From a study of the runs to the decision a person reads: every candidate with its numbers and a reason in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.runs import Run
from marslora.laws import interval
from marslora.strategies._analysis import Analysis
from marslora.strategies._base import Problem, total_cost
from marslora.strategies._measured import FALLBACK_RANK, leader, longest
from marslora.strategies.uniform import nearest_to_uniform

ALIKE = 0.06
"""Rank does not matter where all are tied and each has an expected regret of at most this share of the loss."""


def decision(strategy: str, problem: Problem, runs: Sequence[Run], study: Analysis) -> DecisionRecord:
    """The decision that a study implies."""
    seen = longest(runs, problem.num_train)
    chosen, fallback = _chosen(problem, study, seen)
    verdict = "fallback" if study.choice is None else "clear" if study.choice.distinguishable else "indistinguishable"
    plausible = [study.candidates[c] for c in study.choice.plausible] if study.choice else [chosen]
    entries = tuple(_entry(problem, study, c, chosen, seen) for c in range(len(study.candidates)))
    return DecisionRecord.model_validate(
        {
            "strategy": strategy,
            "chosen": chosen,
            "verdict": verdict,
            "summary": _summary(study, chosen, fallback, len(plausible)),
            "candidates": entries,
            "plausible": tuple(plausible),
            "fallback": fallback,
            "laws": (*study.times.values(), study.law) if len(study.candidates) > 1 else (),
            "closed_forms": study.closed_forms,
            "continue_run": seen[chosen].member.id if chosen in seen else None,
            "calibration": total_cost(runs),
            "calibration_full_runs": problem.spent(runs),
            "assumptions": tuple(_assumptions(problem, study)),
            "next_steps": tuple(_next_steps(study, chosen, seen)),
        }
    )


def _chosen(problem: Problem, study: Analysis, seen: dict[Allocation, Run]) -> tuple[Allocation, str | None]:
    """The chosen allocation, and what was done instead where the laws could not decide."""
    notes = []
    if failed := [f"{part} ({law.message})" for part, law in study.times.items() if law.status == "failed"]:
        notes.append(f"nothing was dropped for imbalance: no convergence law for {', '.join(failed)}")
    if study.lifted:
        notes.append(
            "the data contradict the balance hypothesis: an unbalanced allocation is predicted to be better than every "
            "balanced one, so all were considered"
        )
    if study.choice is not None:
        return study.candidates[study.choice.chosen], "; ".join(notes) or None
    if len(study.candidates) == 1:
        return study.candidates[0], "it is the only allocation there is, so there was nothing to compare"
    eligible = [study.candidates[c] for c in np.flatnonzero(study.kept_C)]
    found = leader(seen, eligible)
    if found is not None:
        notes.append(f"no performance law ({study.law.message}), so the lowest observed loss was taken")
        return found, "; ".join(notes)
    notes.append(f"no joint run could be used, so the candidate nearest to rank {FALLBACK_RANK} was taken")
    return nearest_to_uniform(problem, FALLBACK_RANK), "; ".join(notes)


def _entry(problem: Problem, study: Analysis, c: int, chosen: Allocation, seen: dict[Allocation, Run]) -> Candidate:
    allocation = study.candidates[c]
    kept = bool(study.kept_C[c]) or study.lifted
    run = seen.get(allocation)
    losses, choice, balance = study.outlook, study.choice, study.balance
    return Candidate(
        allocation=allocation,
        status="chosen" if allocation == chosen else "kept" if kept else "dropped",
        reason=_reason(study, c, chosen, kept),
        num_trainable=problem.count_parameters(allocation),
        convergence_examples=balance.times(c) if balance else {},
        mismatch=balance.mismatch(c) if balance else None,
        predicted_loss=interval(float(losses.loss_C[c]), losses.loss_SC[:, c]) if losses else None,
        observed_loss=min(run.validation_loss) if run else None,
        observed_examples=run.last_examples if run else None,
        p_best=float(choice.p_best_C[c]) if choice else None,
        expected_regret=float(choice.regret_C[c]) if choice else None,
    )


def _reason(study: Analysis, c: int, chosen: Allocation, kept: bool) -> str:
    """Why this candidate is what it is, with its numbers."""
    words = [study.balance.words(c)] if study.balance else []
    if study.choice is None:
        words.append("no performance law compares it with the others")
    elif not kept:
        words.insert(0, "out of balance")
    else:
        words.append(f"probability {study.choice.p_best_C[c]:.2f} of being best")
        words.append(f"expected regret {study.choice.regret_C[c]:.4f} nats")
    if study.candidates[c] == chosen and study.choice is not None:
        words.insert(0, _why_chosen(study))
    return "; ".join(words)


def _why_chosen(study: Analysis) -> str:
    choice = study.choice
    assert choice is not None
    if choice.chosen == choice.best:
        return "the one of least expected loss"
    if choice.chosen == choice.tied[0]:
        return f"the cheapest of {len(choice.tied)} allocations that cannot be told apart"
    return "as good as the one of least expected loss, and cheaper"


def _summary(study: Analysis, chosen: Allocation, fallback: str | None, num_plausible: int) -> str:
    choice = study.choice
    if choice is None:
        return f"{chosen}: {fallback}."
    p_best, regret = choice.p_best_C[choice.chosen], choice.regret_C[choice.chosen]
    if choice.distinguishable:
        text = f"{chosen} is the best choice: probability {p_best:.0%}, expected regret {regret:.4f} nats a token."
        if num_plausible > 1:
            text += f" {num_plausible} allocations hold 90 % of the probability of being best."
    else:
        num = len(choice.tied)
        text = (
            f"{num} of {len(study.candidates)} allocations are indistinguishable on what was measured; of these "
            f"{chosen} is {_why_chosen(study)} (probability {p_best:.0%}, expected regret {regret:.4f} nats a token)."
        )
        if num == len(study.candidates):
            text = f"{_why_all_are_tied(study)}: {text}"
    return f"{text} But: {fallback}." if fallback else text


def _why_all_are_tied(study: Analysis) -> str:
    """Whether the allocations are alike, or too little was measured to see how they differ."""
    assert study.choice is not None and study.outlook is not None
    share = float(study.choice.regret_C.max()) / float(study.outlook.loss_C.min())
    if share <= ALIKE:
        return f"Rank does not matter here: any allocation is expected to end within {share:.1%} of the best one's loss"
    return f"Too little was measured: an allocation may end {share:.0%} of the loss above the best, as far as is known"


def _assumptions(problem: Problem, study: Analysis) -> list[str]:
    words = [
        "calibration ran at a constant learning rate; the final run's decay is assumed to help every allocation alike",
        "a checkpoint after t examples stands for a data set of t rows, also beyond the first pass over the rows",
        "one seed an allocation: half of a run's departure from the law is taken for luck",
    ]
    if study.times:
        words.append(
            f"a part counts as converged at {study.share:.0%} of the way to the loss that curves on the same "
            f"rows reach in a full run; measured alone on fewer rows, its time is carried to {problem.num_train} rows"
        )
        words += [f"{part}: {law.message}" for part, law in study.times.items() if law.status == "unidentified"]
    if study.law.status == "unidentified":
        words.append(f"performance: {study.law.message}")
    scores = {**study.law.alternatives, study.law.variant: study.law.held_out_error}
    if "imbalance" in scores and "multiplicative" in scores:
        helps = scores["imbalance"] < 0.95 * scores["multiplicative"]
        words.append(
            f"mismatch of convergence {'does' if helps else 'does not'} predict loss beyond rank here: held-out error "
            f"{scores['imbalance']:.4f} with it, {scores['multiplicative']:.4f} without"
        )
    return words


def _next_steps(study: Analysis, chosen: Allocation, seen: dict[Allocation, Run]) -> list[str]:
    steps = []
    if study.choice is not None and len(study.choice.plausible) > 1:
        rivals = [study.candidates[c] for c in study.choice.plausible if study.candidates[c] != chosen][:3]
        names = ", ".join(map(str, rivals))
        furthest = max((run.last_examples for run in seen.values()), default=0)
        steps.append(f"to separate {chosen} from {names}: train each beyond {furthest} examples, or with further seeds")
    if any(law.status == "failed" for law in study.times.values()):
        steps.append("raise the budget, so that the parts' own runs get to converge")
    if study.choice is None:
        steps.append("raise the budget, or look at why the joint runs failed")
    return steps
