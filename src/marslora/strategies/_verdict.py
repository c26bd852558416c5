"""The verdict in words: what is chosen, how sure that is, what matters, and what to do if too little was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from marslora.core.arrays import Array
from marslora.core.decision import Effect
from marslora.core.runs import Run
from marslora.strategies._knobs import ALIKE_SHARE, are_alike, find_gain
from marslora.strategies._problem import Problem

if TYPE_CHECKING:
    from marslora.strategies._setting_decision import SettingChoice

UNMEASURED_SHARE = 0.03
"""Too little was measured if the expected regret of the choice is more than this share of what training gained."""
MAX_FACTOR = 8.0
"""Largest factor by which a larger budget is recommended: beyond, the estimate says nothing."""


def describe_verdict(
    problem: Problem, choice: SettingChoice, effects: Sequence[Effect], loss_SC: Array, runs: Sequence[Run]
) -> tuple[str, str]:
    """The verdict's name, see `DecisionRecord.verdict`, and its sentences."""
    chosen, gain = problem.candidates()[choice.chosen], find_gain(runs, loss_SC)
    p_best, regret = choice.p_best_C[choice.chosen], choice.regret_C[choice.chosen]
    odds = f"probability {p_best:.0%} of being best, expected regret {regret:.4f} nats per answer token"
    first = _say_what_to_train(problem, choice.p_best_C)
    matters = _say_what_matters(effects)
    if are_alike(effects):
        alike = f"Nothing that was searched matters by more than {ALIKE_SHARE:.0%} of what training gains"
        known = all(effect.verdict == "does not matter" for effect in effects)
        apart = "" if known else ", as long as the language model is trained"
        return "alike", f"{alike}{apart}, so the cheapest will do: {chosen} ({odds})."
    if regret > UNMEASURED_SHARE * gain:
        guess = (
            f"Too little was measured to be sure; the choice is {chosen} ({odds}){_explain_reference(problem, choice)}."
        )
        return "unmeasured", " ".join([*first, guess, _recommend_budget(problem, runs, regret, gain), *matters])
    if len(choice.tied) == 1:
        return "clear", " ".join([*first, f"{chosen} is the best choice ({odds}).", *matters])
    ties = (
        f"{len(choice.tied)} of {len(problem.candidates())} settings cannot be told apart from the best with a "
        f"probability of 90 %; {_say_why(choice)} is {chosen} ({odds}){_explain_reference(problem, choice)}."
    )
    return "indistinguishable", " ".join([*first, ties, *matters])


def _explain_reference(problem: Problem, choice: SettingChoice) -> str:
    """Why the choice is not the setting with the least expected loss; empty if it is, or if it is a cheaper one."""
    if choice.best == choice.favourite or choice.chosen != choice.best:
        return ""
    favourite = problem.candidates()[choice.favourite]
    return f": the law expects a lower loss of {favourite}, but with a probability of {choice.p_favourite:.0%} only"


def _recommend_budget(problem: Problem, runs: Sequence[Run], regret: float, gain: float) -> str:
    """A budget at which the regret is small enough, if it falls with the root of the cost."""
    factor = (regret / (UNMEASURED_SHARE * gain)) ** 2 if gain else MAX_FACTOR
    return f"A budget of about {problem.spent(runs) * min(factor, MAX_FACTOR):.1g} full runs should do."


def _say_why(choice: SettingChoice) -> str:
    if choice.chosen == choice.tied[0]:
        return "the cheapest of them"
    is_best = choice.chosen == choice.best
    return "the choice" if is_best else "the cheapest that is as good as the best"


def _say_what_to_train(problem: Problem, p_best_C: Array) -> list[str]:
    """For each part that may be left as it is: whether to train it."""
    said = []
    for part in problem.space.searched:
        if problem.space.ladder(part)[0] == 0:
            trained_C = np.array([setting.allocation[part] > 0 for setting in problem.candidates()])
            p_train = float(p_best_C[trained_C].sum())
            sure = max(p_train, 1 - p_train)
            verb = "Train" if p_train >= 0.5 else "Leave"
            rest = "" if p_train >= 0.5 else " as it is"
            said.append(f"{verb} {part}{rest} (probability {sure:.0%} that this is better, other tasks included).")
    return said


def _say_what_matters(effects: Sequence[Effect]) -> list[str]:
    """One sentence for the choices that matter, one for those that do not."""
    words = [
        f"{effect.knob} ({effect.nats.value:.3f} nats, {effect.share.value:.0%} of what training gains)"
        for effect in effects
        if effect.verdict == "matters"
    ]
    said = [f"What matters: {', '.join(words)}."] if words else []
    alike = [effect.knob for effect in effects if effect.verdict == "does not matter"]
    return [*said, f"What does not: {', '.join(alike)}."] if alike and words else said
