"""What every law promises: those of the package, and two of the benchmarks that were written as outsiders would."""

import importlib
import pkgutil

import numpy as np
import pytest
from benchmarks.laws_in_data import PowerLaw, RectifiedLaw

from marslora import laws
from marslora.core.decision import LawFit, LawPoint
from marslora.laws import AbstractLaw


def find_laws():
    """The laws of the package, whatever they are."""
    modules = [importlib.import_module(f"marslora.laws.{each.name}") for each in pkgutil.iter_modules(laws.__path__)]
    kinds = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return sorted((k for k in kinds if issubclass(k, AbstractLaw) and k is not AbstractLaw), key=lambda k: k.name)


RANKS, SIZES = (2, 4, 8, 16), (100, 200, 400, 800, 1600, 3200)


def points_for(scale=1.0):
    """Points that have every input any law asks for."""
    rng = np.random.default_rng(0)
    return [
        LawPoint(
            run=f"{rank}.{size}",
            inputs={"rank": rank, "data": size},
            measured=float(scale * (1 + 2 * (rank / 8) ** -0.3 * (size / 400) ** -0.5) * np.exp(0.01 * rng.normal())),
            predicted=float("nan"),
        )
        for rank in RANKS
        for size in SIZES
    ]


@pytest.fixture(params=[*find_laws(), PowerLaw, RectifiedLaw], ids=lambda kind: kind.name)
def law(request) -> AbstractLaw:
    return request.param(request.param.Config(num_bootstraps=20))


def test_the_laws_of_the_package_are_found():
    assert {kind.name for kind in find_laws()} >= {"convergence", "performance"}


def test_a_fit_names_its_law_form_and_parameters(law):
    fit = law.fit(points_for(), "subject", seed=1)
    assert (fit.law, fit.subject, fit.status) == (law.name, "subject", "converged")
    assert fit.variant in law.builders() and "=" in fit.form
    assert fit.num_starts > 1 and fit.num_bootstraps == 20 == len(fit.draws)
    assert fit.gradient < 1e-6 and np.isfinite(fit.condition)
    for item in fit.parameters.values():
        assert item.low <= item.value <= item.high
    assert all(len(row) == len(fit.parameters) for row in fit.draws)


def test_predictions_are_those_of_the_points_and_their_band_holds_them(law):
    fit = law.fit(points_for(), "subject")
    for point in fit.points[::5]:
        assert law.predict(fit, point.inputs) == pytest.approx(point.predicted, rel=1e-9)
        band = law.band(fit, point.inputs)
        assert band.low <= point.predicted <= band.high


def test_a_fit_is_a_function_of_points_and_seed(law):
    assert law.fit(points_for(), "subject", seed=3) == law.fit(points_for(), "subject", seed=3)


def test_the_unit_of_what_is_measured_does_not_matter(law):
    one, other = law.fit(points_for(), "subject"), law.fit(points_for(scale=1000.0), "subject")
    for point in one.points[::7]:
        assert law.predict(other, point.inputs) == pytest.approx(1000 * law.predict(one, point.inputs), rel=1e-3)


def test_a_fit_survives_json(law):
    fit = law.fit(points_for(), "subject")
    again = LawFit.model_validate_json(fit.to_json())
    assert law.predict(again, fit.points[0].inputs) == law.predict(fit, fit.points[0].inputs)


@pytest.mark.parametrize(
    "values", [[], [1.0], [float("nan")] * 8, [float("inf"), -1.0, 0.0], [1.0] * 24, [1e-300, 1e300] * 8]
)
def test_no_measurement_makes_a_law_raise(law, values):
    points = [point.model_copy(update={"measured": value}) for point, value in zip(points_for(), values, strict=False)]
    fit = law.fit(points, "subject")
    assert fit.status in ("converged", "unidentified", "failed")
    if fit.status == "failed":
        assert fit.message
        assert np.isnan(law.predict(fit, {"rank": 8, "data": 100}))
