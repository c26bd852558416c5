"""From draws of every setting's best loss to the choice, what each knob matters, and the decision that people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.arrays import Array
from marslora.core.decision import LEVEL, Candidate, DecisionRecord
from marslora.core.runs import Run
from marslora.core.setting import Setting
from marslora.laws import measure_interval
from marslora.strategies._knobs import find_gain, measure_effects
from marslora.strategies._lowest_loss import FALLBACK_RANK, find_furthest_runs
from marslora.strategies._needless import drop_needless_ranks
from marslora.strategies._problem import Problem
from marslora.strategies._reference import find_incumbent
from marslora.strategies._runs import sum_costs
from marslora.strategies._uniform import find_nearest_uniform
from marslora.strategies._verdict import describe_verdict

CLEARLY_WORSE = 0.9
"""A setting differs clearly from the best if it is worse with this probability. A convention, like `LEVEL`."""
PRICE = 0.003
"""A cheaper setting is taken if, with the same probability, it costs at most this share of what training gained.

A convention, far below what counts as mattering. An expected cost instead let cheap settings win wherever little was
known: their losses average out in expectation, and ended 0.04 nats higher on the tables.
"""


DEPARTURE = 0.9
"""The choice departs from the incumbent if another setting is better with this probability."""


@dataclass(frozen=True)
class SettingChoice:
    """What the draws say about C candidates."""

    p_best_C: Array
    """Share of the draws in which each is best."""
    regret_C: Array
    """Expected loss above the best candidate of the same draw, in nats."""
    favourite: int
    """The candidate with the least expected loss."""
    p_favourite: float
    """Probability that it is better than the incumbent; 0 if it is the incumbent."""
    best: int
    """The candidate with the least expected loss if it is surely better than the incumbent, else the incumbent."""
    tied: tuple[int, ...]
    """The candidates that do not differ clearly from the best, cheapest first."""
    chosen: int
    plausible: tuple[int, ...]
    """Those that hold 90 % of the probability of being best, most probable first, and the chosen one."""


def choose_setting(problem: Problem, runs: Sequence[Run], loss_SC: Array) -> SettingChoice:
    """The best candidate, or the cheapest that surely costs next to nothing in comparison.

    The best is the incumbent, see `find_incumbent`, unless the one with the least expected loss is better with
    probability `DEPARTURE`.
    """
    candidates = problem.candidates()
    size_C = [problem.count_parameters(each.allocation) for each in candidates]
    p_best_C = np.bincount(loss_SC.argmin(axis=1), minlength=len(candidates)) / len(loss_SC)
    regret_C = (loss_SC - loss_SC.min(axis=1, keepdims=True)).mean(axis=0)
    favourite, incumbent = int(regret_C.argmin()), find_incumbent(problem, runs)
    p_favourite = float((loss_SC[:, favourite] < loss_SC[:, incumbent]).mean())
    best = favourite if p_favourite >= DEPARTURE else incumbent
    tied_C = (loss_SC > loss_SC[:, [best]]).mean(axis=0) < CLEARLY_WORSE
    tied_C[best] = True
    tied = sorted(np.flatnonzero(tied_C).tolist(), key=lambda c: (size_C[c], regret_C[c]))
    extra_C = np.quantile(loss_SC - loss_SC[:, [best]], CLEARLY_WORSE, axis=0)
    gain = find_gain(runs, loss_SC)
    price = PRICE * gain
    chosen = next(c for c in tied if c == best or extra_C[c] <= price)
    chosen = drop_needless_ranks(problem, chosen, measure_effects(problem, runs, loss_SC), loss_SC, gain)
    return SettingChoice(
        p_best_C, regret_C, favourite, p_favourite, best, tuple(tied), chosen, _list_plausible(p_best_C, chosen)
    )


def _list_plausible(p_best_C: Array, chosen: int) -> tuple[int, ...]:
    order = np.argsort(-p_best_C, kind="stable")
    num = int(np.searchsorted(np.cumsum(p_best_C[order]), LEVEL - 1e-12)) + 1
    plausible = order[:num].tolist()
    return tuple(plausible if chosen in plausible else [*plausible, chosen])


def decide_setting(strategy: str, problem: Problem, runs: Sequence[Run], loss_SC: Array | None) -> DecisionRecord:
    """The decision that draws of the candidates' best losses imply; without any, a stated fallback."""
    candidates = problem.candidates()
    seen = find_furthest_runs(runs, problem.num_train)
    if loss_SC is None or not any(each in seen for each in candidates):
        return _fall_back(strategy, problem, runs)
    choice = choose_setting(problem, runs, loss_SC)
    effects = measure_effects(problem, runs, loss_SC)
    verdict, summary = describe_verdict(problem, choice, effects, loss_SC, runs)
    chosen = candidates[choice.chosen]
    return DecisionRecord(
        strategy=strategy,
        chosen=chosen.allocation,
        learning_rate=chosen.learning_rate,
        part_learning_rates=dict(chosen.part_learning_rates),
        verdict=verdict,
        summary=summary,
        candidates=tuple(_describe_candidate(problem, choice, loss_SC, c, seen) for c in range(len(candidates))),
        plausible=tuple(candidates[c] for c in choice.plausible),
        effects=effects,
        continue_run=seen[chosen].member.id if chosen in seen else None,
        calibration=sum_costs(runs),
        calibration_full_runs=problem.spent(runs),
        assumptions=_ASSUMPTIONS,
        next_steps=_list_next_steps(problem, choice, seen),
    )


_ASSUMPTIONS = (
    "runs of this study differ as those of a small model did, from whose tables the constants of the law were learnt",
    "the middle of the ladder of learning rates suits rank 16, give or take a factor of 1.4",
    "one seed for each setting: its luck is part of the stated uncertainty",
)


def _describe_candidate(
    problem: Problem, choice: SettingChoice, loss_SC: Array, c: int, seen: dict[Setting, Run]
) -> Candidate:
    setting = problem.candidates()[c]
    run = seen.get(setting)
    return Candidate(
        allocation=setting.allocation,
        learning_rate=setting.learning_rate,
        part_learning_rates=dict(setting.part_learning_rates),
        status="chosen" if c == choice.chosen else "kept",
        reason=_explain(choice, c),
        num_trainable=problem.count_parameters(setting.allocation),
        predicted_loss=measure_interval(float(np.median(loss_SC[:, c])), loss_SC[:, c]),
        observed_loss=run.best_loss if run and run.num_validations else None,
        observed_examples=run.last_examples if run else None,
        p_best=float(choice.p_best_C[c]),
        expected_regret=float(choice.regret_C[c]),
    )


def _explain(choice: SettingChoice, c: int) -> str:
    words = f"probability {choice.p_best_C[c]:.2f} of being best; expected regret {choice.regret_C[c]:.4f} nats"
    if c != choice.chosen:
        return words
    if c == choice.best:
        least = choice.regret_C[c] == choice.regret_C.min()
        known = "the setting with the least expected loss" if least else "no other setting is surely better"
        return f"{known}; {words}"
    return f"cheaper than the setting with the least expected loss, from which it cannot be told apart; {words}"


def _list_next_steps(problem: Problem, choice: SettingChoice, seen: dict[Setting, Run]) -> tuple[str, ...]:
    if len(choice.plausible) < 2:
        return ()
    rivals = [str(problem.candidates()[c]) for c in choice.plausible if c != choice.chosen][:3]
    furthest = max(run.last_examples for run in seen.values())
    chosen = problem.candidates()[choice.chosen]
    return (f"to separate {chosen} from {'; '.join(rivals)}: train each for more than {furthest} examples",)


def _fall_back(strategy: str, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
    """The usual setting, because nothing could be compared."""
    candidates = problem.candidates()
    usual = problem.at_middle_rate(find_nearest_uniform(problem, FALLBACK_RANK))
    chosen = candidates[0] if len(candidates) == 1 else usual
    fallback = (
        "it is the only setting, so there was nothing to compare"
        if len(candidates) == 1
        else f"no candidate run could be used, so the setting nearest to rank {FALLBACK_RANK} was taken"
    )
    seen = find_furthest_runs(runs, problem.num_train)
    return DecisionRecord(
        strategy=strategy,
        chosen=chosen.allocation,
        learning_rate=chosen.learning_rate,
        verdict="fallback",
        summary=f"{chosen}: {fallback}.",
        candidates=tuple(
            Candidate(
                allocation=each.allocation,
                learning_rate=each.learning_rate,
                part_learning_rates=dict(each.part_learning_rates),
                status="chosen" if each == chosen else "kept",
                reason=fallback if each == chosen else "nothing compares it with the others",
                num_trainable=problem.count_parameters(each.allocation),
            )
            for each in candidates
        ),
        plausible=(chosen,),
        fallback=fallback,
        continue_run=seen[chosen].member.id if chosen in seen else None,
        calibration=sum_costs(runs),
        calibration_full_runs=problem.spent(runs),
        assumptions=(f"rank {FALLBACK_RANK} at the middle learning rate suits every part",),
        next_steps=("find out why the candidate runs failed, or raise the budget",),
    )
