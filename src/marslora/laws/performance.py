"""Law-P: the validation loss of an allocation against the rank of each part and the examples seen.

Several forms are fitted; the one that best predicts ranks it has not seen (leave-one-rank-out) is chosen, and the
errors of the others are recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.decision import Interval, LawFit, LawPoint
from marslora.core.runs import Run
from marslora.laws import performance_forms
from marslora.laws.fitting import Fitted
from marslora.laws.law import (
    AbstractLaw,
    FormBuilder,
    add_scores,
    find_references,
    fit_and_score,
    make_sample,
    measure_ahead_error,
)
from marslora.laws.minimising import Sample
from marslora.laws.performance_forms import RESERVED as RESERVED

TIE = 1.05
"""A form must predict better by this factor to be preferred to a plainer one. A convention."""
MIN_ALLOCATIONS = 3
"""With fewer allocations, an exponent of a rank would be chance."""
NEEDED_INPUT = {"imbalance": "imbalance", "capacity": "params"}
"""The input that a form needs beyond ranks and data."""


class PerformanceLaw(AbstractLaw):
    """Loss against a rank per part (inputs named as the parts), ``data``, and ``imbalance`` and ``params`` if given."""

    name = "performance"

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractLaw.Config):
        """Which forms compete to be chosen."""

        forms: tuple[str, ...] = ("multiplicative", "additive", "accelerated", "rectified", "imbalance", "capacity")
        """By their short names, plainest first."""

    def __init__(self, config: Config | None = None) -> None:
        self.config: PerformanceLaw.Config = config or self.Config()

    def builders(self) -> Mapping[str, FormBuilder]:
        """The forms, plainest first."""
        forms = (
            performance_forms.Multiplicative,
            performance_forms.Additive,
            performance_forms.Accelerated,
            performance_forms.Rectified,
            performance_forms.Imbalance,
            performance_forms.Capacity,
        )
        return {kind.variant: kind for kind in forms}

    def fit_usable(
        self, points: Sequence[LawPoint], subject: str, rng: np.random.Generator, num_skipped: int
    ) -> LawFit:
        """The law with the form that the points can carry."""
        sample = make_sample(points)
        parts = [name for name in sample.x if name not in performance_forms.RESERVED]
        num_allocations = len({tuple(sample.x[part][n] for part in parts) for n in range(len(sample))})
        references = find_references(sample, [*parts, "data"])
        if num_allocations < MIN_ALLOCATIONS or not any(part in references for part in parts):
            return self.make_failed_fit(
                subject, f"{num_allocations} allocations were measured, at least {MIN_ALLOCATIONS} are needed", points
            )
        if "params" in sample.x:
            references["params"] = float(np.exp(np.mean(np.log(sample.x["params"]))))
        caveats = [f"{num_skipped} unusable points were left out"] if num_skipped else []
        caveats += [
            f"a.{part} is not identified: every run had the same rank" for part in parts if part not in references
        ]
        scored = {
            name: self._fit_form(name, references, sample, parts)
            for name in self._list_usable_forms(references, sample)
        }
        if not scored:
            return self.make_failed_fit(subject, f"{len(sample)} points are too few for any form", points)
        chosen = _choose_form({name: held_out for name, (_, held_out) in scored.items()})
        fitted, held_out = scored[chosen]
        others = {name: error for name, (_, error) in scored.items() if name != chosen}
        fit = self.make_fit(fitted, sample, points, subject, references, rng, caveats)
        fit = fit.model_copy(update={"ahead_error": measure_ahead_error(fitted, sample)})
        return add_scores(fit, held_out, others)

    def _list_usable_forms(self, references: Mapping[str, float], sample: Sample) -> list[str]:
        """The forms whose inputs the points have, and whose parameters are not more than the points."""
        builders = self.builders()
        usable = []
        for name in self.config.forms:
            lacks_data = name in ("accelerated", "rectified") and "data" not in references
            lacks_input = name in NEEDED_INPUT and NEEDED_INPUT[name] not in sample.x
            if not (lacks_data or lacks_input or len(builders[name](references).names) > len(sample)):
                usable.append(name)
        return usable

    def _fit_form(
        self, name: str, references: Mapping[str, float], sample: Sample, parts: Sequence[str]
    ) -> tuple[Fitted, float]:
        return fit_and_score(self.builders()[name](references), sample, parts)


def _choose_form(errors: Mapping[str, float]) -> str:
    """The plainest form within `TIE` of the best."""
    best = min(errors.values())
    return next(name for name, error in errors.items() if error <= best * TIE)


def make_inputs(
    allocation: Allocation,
    examples: float,
    imbalance: float | None = None,
    num_trainable: float | None = None,
    parts: Sequence[str] | None = None,
) -> dict[str, float]:
    """The law's inputs at an allocation after some examples; only the ranks of ``parts``, if they are given."""
    ranks = {part: float(rank) for part, rank in allocation.ranks if parts is None or part in parts}
    inputs = {**ranks, "data": float(examples)}
    if imbalance is not None:
        inputs["imbalance"] = imbalance
    if num_trainable is not None:
        inputs["params"] = float(num_trainable)
    return inputs


def make_points(
    runs: Sequence[Run],
    imbalance: Mapping[Allocation, float] | None = None,
    num_trainable: Mapping[Allocation, float] | None = None,
    least_examples: float = 1.0,
    parts: Sequence[str] | None = None,
) -> tuple[LawPoint, ...]:
    """The lowest loss so far at every validation point of the runs from ``least_examples`` on.

    That is what a run that ended there would keep. A checkpoint after t examples counts as data of size t. ``parts``
    are those whose rank is an input (None: all): a fixed part has no exponent that could be identified.
    """
    points = []
    for run in runs:
        allocation = run.member.allocation
        for examples, loss in zip(run.examples, accumulate(run.validation_loss, min), strict=False):
            if examples >= least_examples:
                inputs = make_inputs(
                    allocation,
                    examples,
                    imbalance.get(allocation) if imbalance else None,
                    num_trainable.get(allocation) if num_trainable else None,
                    parts,
                )
                points.append(LawPoint(run=run.member.id, inputs=inputs, measured=loss, predicted=float("nan")))
    return tuple(points)


def predict(fit: LawFit, inputs: Mapping[str, float]) -> float:
    """Loss at the inputs (see `make_inputs`) by the law; NaN if the fit failed."""
    return PerformanceLaw().predict(fit, inputs)


def band(fit: LawFit, inputs: Mapping[str, float]) -> Interval:
    """The same with its bootstrap interval."""
    return PerformanceLaw().band(fit, inputs)
