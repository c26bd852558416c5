"""Law-C: examples seen until a part converges, against its rank and the size of the data.

``T(r, D) = E + A (r / r0)^-alpha (D / D0)^beta`` (arXiv 2603.00720): one law for each part, measured on runs that
train that part alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marslora.core.decision import Interval, LawFit, LawPoint
from marslora.core.runs import Run
from marslora.laws import fitted_curve
from marslora.laws.form import Form, Inputs, Shape, raise_to_power, stack_columns
from marslora.laws.law import AbstractLaw, FormBuilder, add_scores, find_references, fit_and_score, make_sample
from marslora.laws.minimising import Sample

MIN_CONVERGED = 2
"""Converged runs without which no law is fitted."""


class ConvergenceForm(Form):
    """``E + A (rank / rank0)^-alpha (data / data0)^beta``, without the inputs that have no reference, or without E."""

    def __init__(self, references: Mapping[str, float], floor: bool = True) -> None:
        self.references = dict(references)
        self.floor = floor
        self.variant = "floor" if floor else "plain"
        self.coefficients = ("A", "E") if floor else ("A",)
        known = {"rank": Shape("alpha", -1.5, 4.0, prior=1.0), "data": Shape("beta", -1.0, 3.0, prior=1.0)}
        self.shapes = tuple(shape for name, shape in known.items() if name in references)
        factors = {"rank": "(rank/{:.6g})^-alpha", "data": "(data/{:.6g})^beta"}
        terms = [factors[name].format(references[name]) for name in known if name in references]
        self.text = " ".join(["T = E + A" if floor else "T = A", *terms])

    def basis(self, x: Inputs, shape_BQ: NDArray[Any]) -> NDArray[Any]:
        """The power of rank and data, and a constant."""
        num = len(next(iter(x.values())))
        grown: NDArray[Any] = np.ones((len(shape_BQ), num), dtype=shape_BQ.dtype)
        for q, name in enumerate(name for name in ("rank", "data") if name in self.references):
            grown = grown * raise_to_power(
                x[name], self.references[name], -shape_BQ[:, q] if name == "rank" else shape_BQ[:, q]
            )
        return stack_columns(num, grown, 1.0) if self.floor else stack_columns(num, grown)


class ConvergenceLaw(AbstractLaw):
    """Convergence time of a part against ``rank`` and ``data``. Censored points are lower bounds."""

    name = "convergence"

    def builders(self) -> Mapping[str, FormBuilder]:
        """With a least time E, and without."""
        return {"floor": ConvergenceForm, "plain": lambda references: ConvergenceForm(references, floor=False)}

    def fit_usable(
        self, points: Sequence[LawPoint], subject: str, rng: np.random.Generator, num_skipped: int
    ) -> LawFit:
        """The law with the form that the points can carry."""
        sample = make_sample(points)
        num_seen = int((~sample.censored_N).sum())
        if num_seen < MIN_CONVERGED:
            return self.make_failed_fit(
                subject,
                f"only {num_seen} of {len(points)} runs converged, at least {MIN_CONVERGED} are needed: train longer",
                points,
            )
        references, caveats = _select_references(sample, num_seen)
        if num_skipped:
            caveats.append(f"{num_skipped} unusable points were left out")
        variant = "floor" if num_seen > len(references) + 2 and "rank" in references else "plain"
        fitted, held_out = fit_and_score(self.builders()[variant](references), sample, ["rank"])
        return add_scores(self.make_fit(fitted, sample, points, subject, references, rng, caveats), held_out, {})


def _select_references(sample: Sample, num_seen: int) -> tuple[dict[str, float], list[str]]:
    """Reference values of the inputs whose exponents the points identify, and caveats about the others."""
    caveats = []
    references = find_references(sample, ["rank", "data"])
    if np.ptp(np.log(sample.y_N)) < 1e-9:
        return {}, ["every run took the same time: neither rank nor data changes it, and their exponents are unknown"]
    for name, exponent in (("rank", "alpha"), ("data", "beta")):
        if name not in references:
            only = f"{sample.x[name][0]:.6g}" if name in sample.x else "none"
            caveats.append(f"{exponent} is not identified: {name} had only the value {only}; the law is reduced")
    while len(references) + 1 > num_seen:
        name, _ = references.popitem()
        caveats.append(f"too few converged runs ({num_seen}) for an exponent of {name}; the law is reduced")
    return references, caveats


def make_points(
    runs: Sequence[Run], part: str, share: float = fitted_curve.CONVERGED_SHARE, horizon: float | None = None
) -> tuple[LawPoint, ...]:
    """One point for each run that trains ``part`` alone: its rank and data, and the examples until convergence.

    A run's floor is what its fitted curve reaches after ``horizon`` examples (None: after infinitely many). The floors
    of short runs are uncertain, so runs on the same rows share one: the median of theirs.
    """
    curves = [(run, fitted_curve.fit_curve(run)) for run in runs]
    floors: dict[int, list[float]] = {}
    for run, curve in curves:
        if curve.status in ("fitted", "turned_up"):
            floors.setdefault(run.member.data_examples, []).append(curve.floor(horizon))
    points = []
    for run, curve in curves:
        shared = floors.get(run.member.data_examples)
        reached = fitted_curve.find_convergence(curve, share, float(np.median(shared)) if shared else None)
        if reached is not None:
            point = LawPoint(
                run=run.member.id,
                inputs={"rank": run.member.allocation[part], "data": run.member.data_examples},
                measured=reached.examples,
                predicted=float("nan"),
                censored=reached.censored,
            )
            points.append(point)
    return tuple(points)


def predict(fit: LawFit, rank: float, data: float) -> float:
    """Examples until convergence at this rank and data size by the law; NaN if the fit failed."""
    return ConvergenceLaw().predict(fit, {"rank": rank, "data": data})


def band(fit: LawFit, rank: float, data: float) -> Interval:
    """The same with its bootstrap interval."""
    return ConvergenceLaw().band(fit, {"rank": rank, "data": data})
