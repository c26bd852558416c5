"""From what the Gaussian process of curves predicts to the decision that people read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marslora.core.arrays import Array
from marslora.core.decision import LEVEL, Candidate, DecisionRecord
from marslora.core.runs import Run
from marslora.core.setting import Setting
from marslora.laws import measure_interval
from marslora.strategies._kronecker_model import Prediction
from marslora.strategies._lowest_loss import decide_by_loss, find_furthest_runs
from marslora.strategies._problem import Problem
from marslora.strategies._runs import sum_costs

ASSUMPTIONS = (
    "curves differ smoothly in log ranks and the log learning rate, and alike at every length",
    "one seed for each setting",
)
NEXT_STEPS = ("raise the budget to continue further settings for longer",)


def decide_kronecker(
    strategy: str, problem: Problem, runs: Sequence[Run], prediction: Prediction | None
) -> DecisionRecord:
    """The setting with the least predicted loss at full length; without a prediction, the lowest measured loss."""
    candidates, seen = problem.candidates(), find_furthest_runs(runs, problem.num_train)
    if not any(each in seen for each in candidates):
        return decide_by_loss(strategy, problem, runs, ASSUMPTIONS, NEXT_STEPS)
    if prediction is None:
        plain = decide_by_loss(strategy, problem, runs, ASSUMPTIONS, NEXT_STEPS)
        why = "no model could be fitted to the curves, so the lowest validation loss was taken"
        return plain.model_copy(
            update={"verdict": "fallback", "fallback": why, "summary": f"{plain.summary} Note: {why}."}
        )
    best = int(prediction.mean_C.argmin())
    chosen, loss_SC = candidates[best], np.exp(prediction.draws_SC)
    p_best_C = np.bincount(loss_SC.argmin(axis=1), minlength=len(candidates)) / len(loss_SC)
    regret_C = (loss_SC - loss_SC.min(axis=1, keepdims=True)).mean(axis=0)
    plausible = _list_plausible(p_best_C, best)
    return DecisionRecord(
        strategy=strategy,
        chosen=chosen.allocation,
        learning_rate=chosen.learning_rate,
        part_learning_rates=dict(chosen.part_learning_rates),
        verdict="clear" if len(plausible) == 1 else "indistinguishable",
        summary=(
            f"{chosen} has the least predicted loss at full length, {np.exp(prediction.mean_C[best]):.4f} nats per "
            f"answer token; it is the best with probability {p_best_C[best]:.0%}."
        ),
        candidates=tuple(
            _describe_candidate(
                problem, each, seen.get(each), each == chosen, p_best, regret, prediction.mean_C[c], loss
            )
            for c, (each, p_best, regret, loss) in enumerate(
                zip(candidates, p_best_C, regret_C, loss_SC.T, strict=True)
            )
        ),
        plausible=tuple(candidates[c] for c in plausible),
        continue_run=seen[chosen].member.id if chosen in seen else None,
        calibration=sum_costs(runs),
        calibration_full_runs=problem.spent(runs),
        assumptions=ASSUMPTIONS,
        next_steps=NEXT_STEPS,
    )


def _list_plausible(p_best_C: Array, best: int) -> list[int]:
    """The fewest candidates that hold 90 % of the probability of being best, and the chosen one."""
    order = np.argsort(-p_best_C, kind="stable")
    num = int(np.searchsorted(np.cumsum(p_best_C[order]), LEVEL - 1e-12)) + 1
    plausible: list[int] = order[:num].tolist()
    return plausible if best in plausible else [*plausible, best]


def _describe_candidate(
    problem: Problem,
    setting: Setting,
    run: Run | None,
    is_chosen: bool,
    p_best: float,
    regret: float,
    log_mean: float,
    loss_S: Array,
) -> Candidate:
    words = f"probability {p_best:.2f} of being best; expected regret {regret:.4f} nats"
    begun = f"measured for {run.last_examples} examples" if run else "predicted from other settings"
    return Candidate(
        allocation=setting.allocation,
        learning_rate=setting.learning_rate,
        part_learning_rates=dict(setting.part_learning_rates),
        status="chosen" if is_chosen else "kept",
        reason=f"{'the least predicted loss at full length; ' if is_chosen else ''}{words}; {begun}",
        num_trainable=problem.count_parameters(setting.allocation),
        predicted_loss=measure_interval(float(np.exp(log_mean)), loss_S),
        observed_loss=min(run.validation_loss) if run else None,
        observed_examples=run.last_examples if run else None,
        p_best=float(p_best),
        expected_regret=float(regret),
    )
