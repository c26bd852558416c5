import numpy as np
import pytest
from benchmarks.laws_in_data import RectifiedForm
from hypothesis import given, settings
from hypothesis import strategies as st

from marslora.laws import fitting, minimising
from marslora.laws.fitting import fit_form, refit
from marslora.laws.intervals import cluster_weights, measure_interval
from marslora.laws.minimising import Sample, minimise

SIZES = np.geomspace(200, 400_000, 14)


def sample(loss):
    num = len(loss)
    return Sample({"data": SIZES[:num]}, np.asarray(loss), np.zeros(num, dtype=bool), np.arange(num))


@given(floor=st.floats(0.5, 3), gain=st.floats(0.3, 3), exponent=st.floats(0.2, 1.2), pivot=st.floats(-2, 2))
@settings(max_examples=15, deadline=None)
def test_a_clean_curve_is_reproduced_and_the_gradient_vanishes(floor, gain, exponent, pivot):
    reference = float(np.exp(np.log(SIZES).mean()))
    loss = floor + gain / (np.exp(pivot) + (SIZES / reference) ** exponent)
    fitted = fit_form(RectifiedForm({"data": reference}), sample(loss))
    assert fitted.converged
    assert np.abs(np.log(fitted.predict({"data": SIZES}) / loss)).max() < 1e-3


def test_gradient_that_is_reported_is_the_gradient_of_the_objective():
    rng = np.random.default_rng(0)
    loss = (1 + 3 / (1 + (SIZES / 9000) ** 0.6)) * np.exp(0.01 * rng.normal(size=len(SIZES)))
    data = sample(loss)
    fitted = fit_form(RectifiedForm({"data": 9000.0}), data)
    ones = np.ones((1, len(data)))
    best = minimise(fitted.form, data, fitted.inner_P[None], ones, fitted.noise, 2.0).objective_B[0]
    steps = np.vstack([0.02 * np.eye(4), -0.02 * np.eye(4)])

    def objective(inner_BP):
        z = (fitted.form.log_value(data.x, inner_BP) - np.log(data.y_N)) / fitted.noise
        return (4.0 * (np.sqrt(1 + z**2 / 4.0) - 1)).sum(1)

    assert best == pytest.approx(objective(fitted.inner_P[None])[0], rel=1e-6)
    assert (objective(fitted.inner_P + steps) >= best - 1e-9).all()


def test_problems_are_minimised_the_same_in_any_batches(monkeypatch):
    rng = np.random.default_rng(0)
    data = sample((1 + 3 / (1 + (SIZES / 9000) ** 0.6)) * np.exp(0.01 * rng.normal(size=len(SIZES))))
    fitted = fit_form(RectifiedForm({"data": 9000.0}), data)
    weights = cluster_weights(data.group_N, 7, rng, 1.0)
    together = refit(fitted, data, weights)
    monkeypatch.setattr(minimising, "MOST_ENTRIES", 2 * len(data))
    assert (refit(fitted, data, weights) == together).all()


def test_a_law_of_many_points_is_found_on_some_and_fitted_to_all(monkeypatch):
    rng = np.random.default_rng(0)
    loss = (1 + 3 / (1 + (np.tile(SIZES, 60) / 9000) ** 0.6)) * np.exp(0.02 * rng.normal(size=60 * len(SIZES)))
    data = Sample({"data": np.tile(SIZES, 60)}, loss, np.zeros(len(loss), dtype=bool), np.arange(len(loss)))
    assert len(data.thin(300)) == 300 and data.thin(len(data)) is data
    some = fit_form(RectifiedForm({"data": 9000.0}), data)
    monkeypatch.setattr(fitting, "MOST_SEARCHED", len(data))
    every = fit_form(RectifiedForm({"data": 9000.0}), data)
    assert some.converged and some.noise == pytest.approx(every.noise, rel=1e-2)
    assert np.abs(np.log(some.predict(data.x) / every.predict(data.x))).max() < 1e-4


@pytest.mark.parametrize("censored", [0.0, 0.2])
def test_points_at_the_same_inputs_are_added_up_exactly(monkeypatch, censored):
    rng = np.random.default_rng(0)
    loss = (1 + 3 / (1 + (np.tile(SIZES, 4) / 9000) ** 0.6)) * np.exp(0.02 * rng.normal(size=4 * len(SIZES)))
    data = Sample({"data": np.tile(SIZES, 4)}, loss, rng.random(len(loss)) < censored, np.arange(len(loss)))
    weights = cluster_weights(data.group_N, 3, rng, 1.0)
    form, starts = RectifiedForm({"data": 9000.0}), np.tile([0.0, 1.0, 0.0, 0.5], (3, 1))
    added = minimise(form, data, starts, weights, 0.02, 2.0)
    monkeypatch.setattr(minimising, "MOST_DIFFERENT", 0.0)
    each = minimise(form, data, starts, weights, 0.02, 2.0)
    assert added.objective_B == pytest.approx(each.objective_B, rel=1e-9)
    assert added.inner_BP == pytest.approx(each.inner_BP, abs=1e-5)


def test_one_wild_point_hardly_moves_the_fit():
    loss = 1 + 3 * (SIZES / 9000) ** -0.3
    clean = fit_form(RectifiedForm({"data": 9000.0}), sample(loss * np.exp(0.003 * np.sin(np.arange(14) * 2.1))))
    loss = loss * np.exp(0.003 * np.sin(np.arange(14) * 2.1))
    loss[6] *= 1.5
    wild = fit_form(RectifiedForm({"data": 9000.0}), sample(loss))
    others = np.arange(14) != 6
    moved = np.abs(np.log(wild.predict({"data": SIZES}) / clean.predict({"data": SIZES})))[others]
    assert moved.max() < 0.04


def test_points_of_a_group_share_their_weight_and_weights_average_one():
    group_N = np.array([0, 0, 1, 2, 2, 2])
    weight_BN = cluster_weights(group_N, 4000, np.random.default_rng(0))
    assert (weight_BN[:, 0] == weight_BN[:, 1]).all() and (weight_BN[:, 3] == weight_BN[:, 5]).all()
    assert weight_BN[:, [0, 2, 3]].mean() == pytest.approx(1.0)
    assert (weight_BN > 0).all()


def test_interval_holds_its_value_and_its_level():
    found = measure_interval(0.5, np.linspace(0, 1, 1001))
    assert (found.low, found.high) == (pytest.approx(0.05), pytest.approx(0.95))
    assert measure_interval(9.0, np.linspace(0, 1, 11)).high == 9.0
    assert measure_interval(1.0, np.array([np.nan])).low == 1.0
