"""What every law is: points in, a `LawFit` out, which predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from marslora.core.allocation import RANK_OF_ZERO
from marslora.core.arrays import Array
from marslora.core.decision import LEVEL, Interval, LawFit, LawPoint
from marslora.laws.fitting import Fitted, fit_form, refit
from marslora.laws.form import Form
from marslora.laws.intervals import bootstrap, measure_interval
from marslora.laws.minimising import Sample

FormBuilder = Callable[[Mapping[str, float]], Form]
"""Makes a form from the reference values of the inputs that it depends on."""
MAX_CONDITION = 1e6
"""Parameters of a fit with a larger condition number cannot be told apart. A convention for scaled columns: half of the
digits of a 64-bit float are lost."""
MAX_GRADIENT = 1e-2
"""A fit whose gradient is larger, in standard errors of a parameter, has failed: it is not near an optimum."""
MIN_LOG_RANGE = 1.0
"""The data must vary by this many e-folds for the error of looking ahead to be measured."""
AHEAD_GAP = 0.1
"""Points nearer to the end of the fitted half, in e-folds, say nothing about looking ahead."""
MIN_VALUE, MAX_VALUE = 1e-100, 1e100
"""Measurements beyond these would overflow in the fit."""


class AbstractLaw(ABC):
    """A law: its forms, and how one is chosen and fitted.

    `fit` never raises on bad measurements: the status of the `LawFit` and its message say what went wrong.
    """

    name: str
    """What `LawFit.law` calls it."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How every law is fitted."""

        num_bootstraps: int = 200
        """Replicates behind the intervals. A convention: ten of them then lie beyond each end of a 90 % interval."""
        level: float = LEVEL
        """Level of the intervals."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    @abstractmethod
    def builders(self) -> Mapping[str, FormBuilder]:
        """The law's forms by short name; the first is the plain one."""

    def fit(self, points: Sequence[LawPoint], subject: str = "", seed: int = 0) -> LawFit:
        """The law of the points, about ``subject``. Points with the same ``run`` are resampled together."""
        usable = [point for point in points if _is_usable(point)]
        try:
            return self.fit_usable(usable, subject, np.random.default_rng(seed), len(points) - len(usable))
        except (np.linalg.LinAlgError, FloatingPointError, ValueError) as error:
            return self.make_failed_fit(subject, f"the fit did not work: {error}", usable)

    @abstractmethod
    def fit_usable(
        self, points: Sequence[LawPoint], subject: str, rng: np.random.Generator, num_skipped: int
    ) -> LawFit:
        """The law of the points that have finite numbers; ``num_skipped`` others were left out."""

    def make_failed_fit(self, subject: str, message: str, points: Sequence[LawPoint] = ()) -> LawFit:
        """A fit with status ``failed``, and why."""
        return LawFit(
            law=self.name, subject=subject, form="none", status="failed", message=message, points=tuple(points)
        )

    def make_fit(
        self,
        fitted: Fitted,
        sample: Sample,
        points: Sequence[LawPoint],
        subject: str,
        references: Mapping[str, float],
        rng: np.random.Generator,
        caveats: Sequence[str] = (),
    ) -> LawFit:
        """The `LawFit` of a fitted form, its intervals drawn by cluster bootstrap."""
        drawn_BP = fitted.form.reported(bootstrap(fitted, sample, self.config.num_bootstraps, rng))
        value_P = fitted.form.reported(fitted.inner_P[None])[0]
        predicted_N = fitted.predict(sample.x)
        residual_N = np.log(sample.y_N / predicted_N)[~sample.censored_N]
        status, messages = _judge_fit(fitted, caveats)
        return LawFit(
            law=self.name,
            subject=subject,
            variant=fitted.form.variant,
            form=fitted.form.text,
            status=status,
            message="; ".join(messages),
            parameters={
                name: measure_interval(float(value), drawn_BP[:, column], self.config.level)
                for column, (name, value) in enumerate(zip(fitted.form.names, value_P, strict=True))
            },
            references=dict(references),
            draws=tuple(tuple(float(value) for value in row) for row in drawn_BP),
            residual=float(np.sqrt(np.mean(residual_N**2))) if len(residual_N) else float("nan"),
            condition=fitted.condition,
            gradient=fitted.gradient,
            points=tuple(
                point.model_copy(update={"predicted": float(value)})
                for point, value in zip(points, predicted_N, strict=True)
            ),
            num_starts=fitted.num_starts,
            num_bootstraps=len(drawn_BP),
        )

    def predict(self, fit: LawFit, inputs: Mapping[str, float]) -> float:
        """The law's value at the inputs; NaN if the fit failed."""
        return float(self.predict_many(fit, {name: np.array([value]) for name, value in inputs.items()})[0])

    def predict_many(self, fit: LawFit, inputs: Mapping[str, NDArray[np.float64]]) -> Array:
        """The law's values at N points, each input an array of N."""
        value_N: Array = self._evaluate(fit, inputs, np.array([[item.value for item in fit.parameters.values()]]))[0]
        return value_N

    def predict_draws(self, fit: LawFit, inputs: Mapping[str, NDArray[np.float64]]) -> Array:
        """The values at N points in every bootstrap replicate: (draws, N)."""
        if not fit.draws:
            return self.predict_many(fit, inputs)[None]
        return self._evaluate(fit, inputs, np.array(fit.draws))

    def band(self, fit: LawFit, inputs: Mapping[str, float]) -> Interval:
        """The law's value at the inputs with its bootstrap interval."""
        one = {name: np.array([value]) for name, value in inputs.items()}
        return measure_interval(
            float(self.predict_many(fit, one)[0]), self.predict_draws(fit, one)[:, 0], self.config.level
        )

    def _evaluate(self, fit: LawFit, inputs: Mapping[str, NDArray[np.float64]], reported_BP: Array) -> Array:
        num = max((len(values) for values in inputs.values()), default=1)
        if fit.status == "failed" or fit.variant not in self.builders():
            return np.full((len(reported_BP), num), np.nan)
        form = self.builders()[fit.variant](fit.references)
        value_BN: Array = np.exp(form.log_value(prepare_inputs(inputs), form.inner(reported_BP)))
        return value_BN


def prepare_inputs(inputs: Mapping[str, NDArray[np.float64]]) -> dict[str, Array]:
    """The inputs as forms take them: positive, with rank 0 counted as `RANK_OF_ZERO`."""
    return {
        name: np.asarray(values, dtype=float) if name in LINEAR_INPUTS else np.maximum(values, RANK_OF_ZERO)
        for name, values in inputs.items()
    }


LINEAR_INPUTS = frozenset({"imbalance"})
"""Inputs of which no power is taken, so that they may be 0."""


def make_sample(points: Sequence[LawPoint]) -> Sample:
    """The points as arrays, with the inputs that all of them have."""
    names = sorted(set.intersection(*(set(point.inputs) for point in points))) if points else []
    runs = {run: index for index, run in enumerate(dict.fromkeys(point.run for point in points))}
    return Sample(
        x=prepare_inputs({name: np.array([point.inputs[name] for point in points]) for name in names}),
        y_N=np.array([point.measured for point in points]),
        censored_N=np.array([point.censored for point in points], dtype=bool),
        group_N=np.array([runs[point.run] for point in points], dtype=np.int64),
    )


def find_references(sample: Sample, inputs: Sequence[str]) -> dict[str, float]:
    """Geometric means of the inputs that take more than one value: the scale that makes a fit well conditioned."""
    return {
        name: float(np.exp(np.mean(np.log(np.unique(sample.x[name])))))
        for name in inputs
        if name in sample.x and len(np.unique(sample.x[name])) > 1
    }


def measure_held_out_error(fitted: Fitted, sample: Sample, inputs: Sequence[str]) -> float:
    """Root mean square log error if each value of each input is predicted from the other values.

    Inputs with fewer than three values are skipped: no dependence can be learnt from one value.
    """
    folds = [
        sample.x[name] == level
        for name in inputs
        if name in sample.x and len(np.unique(sample.x[name])) > 2
        for level in np.unique(sample.x[name])
    ]
    if not folds:
        return float("nan")
    left_out = np.array(folds)
    inner_FP = refit(fitted, sample, (~left_out).astype(float))
    error_FN = fitted.form.log_value(sample.x, inner_FP) - np.log(sample.y_N)
    chosen = error_FN[left_out & ~sample.censored_N]
    return float(np.sqrt(np.mean(chosen**2))) if len(chosen) else float("nan")


def measure_ahead_error(fitted: Fitted, sample: Sample) -> float:
    """Root mean square log error at the largest data, fitted to the smaller half of the logarithmic range of ``data``.

    Divided by the logarithm of the ratio that is bridged. NaN if the data hardly vary.
    """
    log_data_N = np.log(sample.x["data"]) if "data" in sample.x else np.zeros(len(sample))
    if np.ptp(log_data_N) < MIN_LOG_RANGE:
        return float("nan")
    last = log_data_N.max() - 0.5 * float(np.ptp(log_data_N))
    inner_FP = refit(fitted, sample, (log_data_N <= last).astype(float)[None])
    error_N = fitted.form.log_value(sample.x, inner_FP)[0] - np.log(sample.y_N)
    later = (log_data_N > last + AHEAD_GAP) & ~sample.censored_N
    rate_N = error_N[later] / (log_data_N[later] - last)
    return float(np.sqrt(np.mean(rate_N**2))) if len(rate_N) else float("nan")


def fit_and_score(form: Form, sample: Sample, inputs: Sequence[str]) -> tuple[Fitted, float]:
    """One form fitted, and its held-out error (infinity if that is not a number)."""
    fitted = fit_form(form, sample)
    error = measure_held_out_error(fitted, sample, inputs)
    return fitted, error if np.isfinite(error) else float("inf")


def add_scores(fit: LawFit, held_out: float, alternatives: Mapping[str, float]) -> LawFit:
    """The fit with its held-out error and those of the forms that were not chosen."""
    return fit.model_copy(update={"held_out_error": held_out, "alternatives": dict(alternatives)})


def _judge_fit(
    fitted: Fitted, caveats: Sequence[str]
) -> tuple[Literal["converged", "unidentified", "failed"], list[str]]:
    messages = list(caveats)
    if not fitted.converged:
        messages.append(f"the fit has not quite converged (gradient of {fitted.gradient:.1e} standard errors)")
    if fitted.condition > MAX_CONDITION:
        messages.append(f"the parameters cannot be told apart (condition number {fitted.condition:.1e})")
    if not fitted.converged and fitted.gradient > MAX_GRADIENT:
        return "failed", messages
    return ("unidentified" if messages else "converged"), messages


def _is_usable(point: LawPoint) -> bool:
    values = [point.measured, *point.inputs.values()]
    return bool(np.isfinite(values).all()) and MIN_VALUE < point.measured < MAX_VALUE
