"""What every law is: points in, a `LawFit` out, and the same `LawFit` back to a curve."""

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
from marslora.laws.fitting import Fitted, Sample, fit_form, refit
from marslora.laws.form import Form
from marslora.laws.intervals import bootstrap, measure_interval

FormBuilder = Callable[[Mapping[str, float]], Form]
"""A form from the reference values of the inputs that move it."""
WORST_CONDITION = 1e6


class AbstractLaw(ABC):
    """A law and how it is fitted. ``fit`` never raises on bad measurements: the status says what went wrong."""

    name: str

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How every law is fitted."""

        num_bootstraps: int = 200
        """Replicates behind the intervals."""
        level: float = LEVEL
        """Level of the intervals."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    @abstractmethod
    def builders(self) -> Mapping[str, FormBuilder]:
        """The law's forms by short name; the first is the plain one."""

    def fit(self, points: Sequence[LawPoint], subject: str = "", seed: int = 0) -> LawFit:
        """The law that the points obey. Points of the same ``run`` are resampled together."""
        usable = [point for point in points if _usable(point)]
        skipped = len(points) - len(usable)
        try:
            return self._fit_usable(usable, subject, np.random.default_rng(seed), skipped)
        except (np.linalg.LinAlgError, FloatingPointError, ValueError) as error:
            return self.make_failed_fit(subject, f"the fit broke down: {error}", usable)

    @abstractmethod
    def _fit_usable(
        self, points: Sequence[LawPoint], subject: str, rng: np.random.Generator, skipped: int
    ) -> LawFit: ...

    def make_failed_fit(self, subject: str, message: str, points: Sequence[LawPoint] = ()) -> LawFit:
        """A fit that did not come about, with the reason."""
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
        status, messages = _verdict(fitted, caveats)
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
        """The law's value at the inputs; NaN where the fit failed."""
        return float(self.predict_many(fit, {name: np.array([value]) for name, value in inputs.items()})[0])

    def predict_many(self, fit: LawFit, inputs: Mapping[str, NDArray[np.float64]]) -> Array:
        """The law's values at N points, each input an array of N."""
        value_N: Array = self._evaluate(fit, inputs, np.array([[item.value for item in fit.parameters.values()]]))[0]
        return value_N

    def predict_draws(self, fit: LawFit, inputs: Mapping[str, NDArray[np.float64]]) -> Array:
        """The values at N points of every bootstrap replicate: (draws, N)."""
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
        value_BN: Array = np.exp(form.log_value(prepare(inputs), form.inner(reported_BP)))
        return value_BN


def prepare(inputs: Mapping[str, NDArray[np.float64]]) -> dict[str, Array]:
    """The inputs as forms take them: positive, rank 0 counted as `RANK_OF_ZERO`."""
    return {
        name: np.asarray(values, dtype=float) if name in LINEAR_INPUTS else np.maximum(values, RANK_OF_ZERO)
        for name, values in inputs.items()
    }


LINEAR_INPUTS = frozenset({"imbalance"})
"""Inputs that may be 0 because no power is taken of them."""


def make_sample(points: Sequence[LawPoint]) -> Sample:
    """The arrays of the points."""
    names = sorted(set.intersection(*(set(point.inputs) for point in points))) if points else []
    runs = {run: index for index, run in enumerate(dict.fromkeys(point.run for point in points))}
    return Sample(
        x=prepare({name: np.array([point.inputs[name] for point in points]) for name in names}),
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
    """Root mean square log error where each value of each input is predicted from the other values.

    Inputs with fewer than three values are passed over: from one value no dependence can be learnt.
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

    Divided by the logarithm of the ratio bridged. NaN where the data hardly vary.
    """
    log_data_N = np.log(sample.x["data"]) if "data" in sample.x else np.zeros(len(sample))
    if np.ptp(log_data_N) < 1.0:
        return float("nan")
    last = log_data_N.max() - 0.5 * float(np.ptp(log_data_N))
    inner_FP = refit(fitted, sample, (log_data_N <= last).astype(float)[None])
    error_N = fitted.form.log_value(sample.x, inner_FP)[0] - np.log(sample.y_N)
    later = (log_data_N > last + 0.1) & ~sample.censored_N
    rate_N = error_N[later] / (log_data_N[later] - last)
    return float(np.sqrt(np.mean(rate_N**2))) if len(rate_N) else float("nan")


def fit_and_score(form: Form, sample: Sample, inputs: Sequence[str]) -> tuple[Fitted, float]:
    """One form fitted, with its held-out error (infinity where that is not a number)."""
    fitted = fit_form(form, sample)
    error = measure_held_out_error(fitted, sample, inputs)
    return fitted, error if np.isfinite(error) else float("inf")


def add_scores(fit: LawFit, held_out: float, alternatives: Mapping[str, float]) -> LawFit:
    """The fit with its held-out error and those of the forms that were not chosen."""
    return fit.model_copy(update={"held_out_error": held_out, "alternatives": dict(alternatives)})


def _verdict(
    fitted: Fitted, caveats: Sequence[str]
) -> tuple[Literal["converged", "unidentified", "failed"], list[str]]:
    messages = list(caveats)
    if not fitted.converged:
        messages.append(f"the optimiser stopped at a gradient of {fitted.gradient:.1e} standard errors")
    if fitted.condition > WORST_CONDITION:
        messages.append(f"the parameters cannot be told apart (condition number {fitted.condition:.1e})")
    if not fitted.converged and fitted.gradient > 1e-2:
        return "failed", messages
    return ("unidentified" if messages else "converged"), messages


def _usable(point: LawPoint) -> bool:
    values = [point.measured, *point.inputs.values()]
    return bool(np.isfinite(values).all()) and 1e-100 < point.measured < 1e100
