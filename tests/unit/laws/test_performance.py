import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.laws.test_curve import run_of

from marslora.core.allocation import Allocation
from marslora.core.decision import LawPoint
from marslora.laws import performance
from marslora.laws.performance import PerformanceLaw

RANKS, TIMES = (2, 8, 32), np.geomspace(50, 1600, 6)


def points_from(loss_of, noise=0.0, seed=0, imbalance=False):
    rng = np.random.default_rng(seed)
    points = []
    for one in RANKS:
        for two in RANKS:
            luck = noise * rng.normal()
            for t in TIMES:
                inputs = {"one": one, "two": two, "data": float(t), "params": one + 2.0 * two}
                if imbalance:
                    inputs["imbalance"] = abs(float(np.log(one / two)))
                loss = loss_of(one, two, t) * float(np.exp(luck + 0.3 * noise * rng.normal()))
                points.append(LawPoint(run=f"{one}.{two}", inputs=inputs, measured=loss, predicted=float("nan")))
    return points


def multiplicative(one, two, t):
    return 0.5 + 1.2 * (one / 8) ** -0.1 * (two / 8) ** -0.2 * (t / 300) ** -0.4


def additive(one, two, t):
    return 0.5 + 0.8 * (t / 300) ** -0.5 + 0.15 * (one / 8) ** -0.7 + 0.1 * (two / 8) ** -0.7


def accelerated(one, two, t):
    return 0.5 + 2.0 * (1 + t / 200 * (one / 8) ** 0.5 * (two / 8) ** 0.2) ** -0.6


def with_imbalance(one, two, t):
    return 0.5 + (1.0 * (one / 8) ** -0.05 + 0.3 * abs(np.log(one / two))) * (t / 300) ** -0.4


@pytest.mark.parametrize(
    ("loss_of", "variant"),
    [
        (multiplicative, "multiplicative"),
        (additive, "additive"),
        (accelerated, "accelerated"),
        (with_imbalance, "imbalance"),
    ],
)
def test_the_form_behind_the_data_is_chosen_and_predicts_far_ahead(loss_of, variant):
    fit = PerformanceLaw().fit(points_from(loss_of, imbalance=True), "allocation")
    assert fit.variant == variant
    assert fit.status == "converged"
    assert set(fit.alternatives) == {
        "multiplicative",
        "additive",
        "accelerated",
        "rectified",
        "imbalance",
        "capacity",
    } - {variant}
    assert min(fit.alternatives.values()) >= fit.held_out_error / 1.05
    inputs = {"one": 8.0, "two": 32.0, "data": 16_000.0, "params": 72.0, "imbalance": float(np.log(4))}
    assert performance.predict(fit, inputs) == pytest.approx(loss_of(8, 32, 16_000), rel=0.01)


@given(first=st.floats(0.02, 0.4), second=st.floats(0.02, 0.4), slope=st.floats(0.2, 0.8))
@settings(max_examples=8, deadline=None)
def test_clean_losses_give_their_exponents_back(first, second, slope):
    def loss_of(one, two, t):
        return 0.4 + 1.5 * (one / 8) ** -first * (two / 8) ** -second * (t / 300) ** -slope

    law = PerformanceLaw(PerformanceLaw.Config(forms=("multiplicative",), num_bootstraps=10))
    fit = law.fit(points_from(loss_of), "allocation")
    assert fit.parameters["a.one"].value == pytest.approx(first, abs=5e-3)
    assert fit.parameters["a.two"].value == pytest.approx(second, abs=5e-3)
    assert fit.parameters["b"].value == pytest.approx(slope, abs=2e-2)


def test_intervals_cover_under_noise_between_runs():
    covered, law = 0, PerformanceLaw(PerformanceLaw.Config(forms=("multiplicative",)))
    target = multiplicative(32, 32, 1600.0) / multiplicative(2, 2, 1600.0)
    for seed in range(30):
        fit = law.fit(points_from(multiplicative, noise=0.02, seed=seed), "allocation", seed)
        inputs = {"one": np.array([32.0, 2.0]), "two": np.array([32.0, 2.0]), "data": np.array([1600.0, 1600.0])}
        draws = law.predict_draws(fit, inputs)
        low, high = np.quantile(draws[:, 0] / draws[:, 1], [0.05, 0.95])
        covered += low <= target <= high
    assert covered >= 22


def test_one_length_of_runs_drops_the_data_from_the_law():
    points = [point for point in points_from(multiplicative) if point.inputs["data"] == pytest.approx(50)]
    fit = PerformanceLaw().fit(points, "allocation")
    assert fit.status != "failed"
    assert "b" not in fit.parameters


def test_too_few_allocations_fail_with_a_reason():
    points = [point for point in points_from(multiplicative) if point.run in ("2.2", "8.8")]
    fit = PerformanceLaw().fit(points, "allocation")
    assert fit.status == "failed" and "at least 3" in fit.message
    assert np.isnan(performance.predict(fit, {"one": 2.0, "two": 2.0, "data": 100.0}))


def test_unusable_points_are_left_out_and_counted():
    points = points_from(multiplicative)
    broken = points[0].model_copy(update={"measured": float("nan")})
    fit = PerformanceLaw(PerformanceLaw.Config(num_bootstraps=5)).fit([*points, broken], "allocation")
    assert "1 unusable" in fit.message
    assert len(fit.points) == len(points)


def test_rank_zero_is_half_a_rank():
    law = PerformanceLaw(PerformanceLaw.Config(forms=("multiplicative",), num_bootstraps=5))
    fit = law.fit(points_from(multiplicative), "allocation")
    nothing, half = ({"one": rank, "two": 8.0, "data": 100.0} for rank in (0.0, 0.5))
    assert performance.predict(fit, nothing) == performance.predict(fit, half)


def test_points_of_runs_carry_their_inputs():
    allocation = Allocation.of(one=4, two=16)
    run = run_of((3.0, 2.5, 2.0), (0, 50, 100), allocation=allocation)
    points = performance.make_points([run], {allocation: 0.7}, {allocation: 44.0}, least_examples=50)
    assert [point.measured for point in points] == [2.5, 2.0]
    assert points[0].inputs == {"one": 4.0, "two": 16.0, "data": 50.0, "imbalance": 0.7, "params": 44.0}


def test_a_fit_survives_json_and_still_predicts():
    fit = PerformanceLaw().fit(points_from(multiplicative, noise=0.01), "allocation")
    again = type(fit).model_validate_json(fit.to_json())
    inputs = {"one": 8.0, "two": 8.0, "data": 5000.0, "params": 24.0}
    assert performance.predict(again, inputs) == performance.predict(fit, inputs)
    assert performance.band(again, inputs) == performance.band(fit, inputs)
