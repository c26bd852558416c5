"""How much each choice matters: the learning rate, the rank of each part, and whether a part is trained at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from marslora.core.arrays import Array
from marslora.core.decision import Effect, Interval
from marslora.core.runs import Run
from marslora.core.setting import Setting
from marslora.laws import measure_interval
from marslora.strategies._problem import Problem

ALIKE_SHARE = 0.02
"""A choice matters if its worst value costs more than this share of what training gained. A convention."""
LANGUAGE = "language"
"""The part that is trained unless it is surely better left as it is: to leave it is no way to save."""
SURE = 0.9
"""Probability with which a choice is said to matter, or not to. A convention, like the level of intervals."""

Knob = tuple[str, Callable[[Setting], object | None]]
"""A name, and the value that a setting has; None if the choice does not arise for it."""


def find_gain(runs: Sequence[Run], loss_SC: Array) -> float:
    """What training gains: the untouched model's validation loss minus the expected best loss; at least 0.

    Without a validation of the untouched model, it is the expected best loss itself.
    """
    best = float(loss_SC.mean(axis=0).min())
    before = [run.validation_loss[0] for run in runs if run.examples and run.examples[0] == 0]
    return max(float(np.median(before)) - best, 0.0) if before else best


def measure_effects(problem: Problem, runs: Sequence[Run], loss_SC: Array) -> tuple[Effect, ...]:
    """The effect of every choice that the problem leaves open, the largest expected one first."""
    gain = find_gain(runs, loss_SC)
    knobs = [(name, _group(problem, value_of)) for name, value_of in _list_knobs(problem)]
    effects = [_measure_effect(name, groups, loss_SC, gain) for name, groups in knobs]
    return tuple(sorted(filter(None, effects), key=lambda effect: -effect.nats.value))


def are_alike(effects: Sequence[Effect]) -> bool:
    """Whether no choice matters but that of training the language model, which is no way to save."""
    others = [effect for effect in effects if effect.knob != name_training(LANGUAGE)]
    return bool(others) and all(effect.verdict == "does not matter" for effect in others)


def _list_knobs(problem: Problem) -> Iterator[Knob]:
    if len(problem.learning_rates) > 1:
        yield "learning rate", _find_rate
    for part in problem.space.searched:
        ladder = problem.space.ladder(part)
        if ladder[0] == 0:
            yield name_training(part), partial(_is_trained, part)
        if len(ladder) > 1 + (ladder[0] == 0):
            yield name_rank(part), partial(_find_rank, part)
    for part, _ in problem.part_rate_factors:
        yield f"{part} rate", partial(_find_factor, part)


def name_training(part: str) -> str:
    """The name of the choice whether a part is trained."""
    return f"training {part}"


def name_rank(part: str) -> str:
    """The name of the choice of a part's rank, if it is trained."""
    return f"{part} rank"


def _find_rate(setting: Setting) -> float | None:
    return setting.learning_rate


def _is_trained(part: str, setting: Setting) -> bool:
    return setting.allocation[part] > 0


def _find_rank(part: str, setting: Setting) -> int | None:
    return setting.allocation[part] or None


def _find_factor(part: str, setting: Setting) -> float | None:
    """The factor of a part's learning rate on that of the others; None for a part that is not trained."""
    own = setting.rate_of(part)
    return round(own / setting.learning_rate, 3) if own and setting.learning_rate and setting.allocation[part] else None


def _group(problem: Problem, value_of: Callable[[Setting], object | None]) -> dict[object, list[int]]:
    """The candidates that have each value."""
    groups: dict[object, list[int]] = defaultdict(list)
    for c, setting in enumerate(problem.candidates()):
        if (value := value_of(setting)) is not None:
            groups[value].append(c)
    return groups


def _measure_effect(name: str, groups: dict[object, list[int]], loss_SC: Array, gain: float) -> Effect | None:
    if len(groups) < 2:
        return None
    profile_SV = np.stack([loss_SC[:, members].min(axis=1) for members in groups.values()], axis=1)
    mean_V = profile_SV.mean(axis=0)
    low, high = int(mean_V.argmin()), int(mean_V.argmax())
    cost_S = profile_SV[:, high] - profile_SV[:, low]
    nats = measure_interval(float(cost_S.mean()), cost_S)
    unit = max(gain, np.finfo(float).tiny)
    share = Interval(value=nats.value / unit, low=nats.low / unit, high=nats.high / unit, level=nats.level)
    p_matters = float((cost_S > ALIKE_SHARE * gain).mean())
    values = [_write_value(value) for value in groups]
    verdict = "matters" if p_matters >= SURE else "does not matter" if p_matters <= 1 - SURE else "unresolved"
    return Effect.model_validate(
        {"knob": name, "nats": nats, "share": share, "best": values[low], "worst": values[high], "verdict": verdict}
    )


def _write_value(value: object) -> str:
    if isinstance(value, bool):
        return "trained" if value else "not trained"
    return f"{value:.2g}" if isinstance(value, float) else str(value)
