"""The law of settings against its own prior, against exact knowledge, and in its coordinates."""

import dataclasses

import numpy as np
import pytest

from marslora.core.allocation import Space
from marslora.core.setting import Setting
from marslora.laws import Measurements, SettingLaw, fit_setting_law, make_features
from marslora.laws.setting_kernel import (
    compute_common_covariance,
    compute_mean,
    compute_noise,
    compute_own_covariance,
)
from marslora.laws.setting_law import load_constants, make_points

SPACE = Space.of({"eye": (0, 4, 16, 64), "tongue": (4, 16, 64)})
RATES = (5e-4, 1e-3, 2e-3)
SETTINGS = [Setting(allocation=a, learning_rate=rate) for a in SPACE.allocations() for rate in RATES]
FEATURES = make_features(SETTINGS, SPACE.parts, 1e-3, 100)


def plan_measurements(rng, num_settings=10):
    """Training losses over three intervals and one validation, of some settings, without values."""
    rows = []
    for setting in rng.permutation(len(SETTINGS))[:num_settings]:
        for number, (start, end) in enumerate([(0.05, 0.1), (0.1, 0.2), (0.2, 0.4)]):
            rows.append((setting, np.log((start + end) / 2), 1.0, number, (end - start) * 1600))
        rows.append((setting, np.log(0.4), 0.0, 9, 1.0))
    setting_N, log_share_N, is_train_N, batch_N, rows_N = map(np.array, zip(*rows, strict=True))
    return Measurements(setting_N, log_share_N, np.zeros(len(rows)), is_train_N, batch_N, rows_N, np.zeros(len(rows)))


def draw_study(planned, rng, amplitude=1.0):
    """Values of the planned measurements and of the best losses, from the prior of the law itself."""
    constants = load_constants()
    points = make_points(FEATURES, planned, constants)
    common_N, own_N = compute_mean(constants, FEATURES.group_F, points)
    covariance = (
        compute_common_covariance(constants, points)
        + amplitude**2 * compute_own_covariance(constants, FEATURES.group_F, points)
        + compute_noise(constants, points)
    )
    value_N = rng.multivariate_normal(common_N + amplitude * own_N, covariance)
    num = len(planned.setting_N)
    return dataclasses.replace(planned, log_loss_N=value_N[:num]), value_N[num:]


def measure_coverage(law: SettingLaw, best_C, rng):
    low_C, high_C = np.quantile(law.draw(1000, rng), [0.05, 0.95], axis=0)
    return float(((best_C >= low_C) & (best_C <= high_C)).mean())


def test_intervals_hold_what_they_promise_where_the_prior_is_true():
    rng = np.random.default_rng(0)
    coverage = []
    constants = {**load_constants(), "evidence_power": 1.0, "tail_odds": 1e-6}  # studies like the tables
    for _ in range(60):
        measured, best_C = draw_study(plan_measurements(rng), rng)
        coverage.append(measure_coverage(fit_setting_law(FEATURES, measured, constants), best_C, rng))
    assert 0.85 < np.mean(coverage) < 0.95


def test_the_usual_setting_has_all_coordinates_at_zero_but_that_it_is_trained():
    usual = make_features([Setting(allocation=SPACE_USUAL, learning_rate=1e-3)], SPACE.parts, 1e-3, 100)
    assert usual.place_CD.tolist() == [[1, 1, 0, 0, 0, 0, 0]]


SPACE_USUAL = next(each for each in SPACE.allocations() if set(each.as_dict().values()) == {16})


def test_a_rung_of_a_factor_of_four_is_a_coordinate_of_one():
    four = Setting(allocation=SPACE_USUAL.replace(eye=64), learning_rate=4e-3)
    features = make_features([four], SPACE.parts, 1e-3, 100)
    assert features.place_CD[0, 2] == 1 and features.place_CD[0, -1] == pytest.approx(1)


def test_a_part_with_its_own_rate_is_at_the_log_of_its_factor():
    own = Setting(allocation=SPACE_USUAL, learning_rate=1e-3, part_learning_rates=(("eye", 4e-3),))
    plain = Setting(allocation=SPACE_USUAL, learning_rate=1e-3)
    features = make_features([plain, own], SPACE.parts, 1e-3, 100)
    assert features.place_CD[1, 4] == pytest.approx(1)
    assert {"factor", "factor_squared"} <= set(features.group_F)
    assert "factor" not in FEATURES.group_F


def test_a_part_that_is_always_trained_has_no_feature_for_that():
    assert [group for group in FEATURES.group_F if group.startswith("trained.")] == ["trained.tower"]


def test_a_measured_best_loss_is_known():
    constants = load_constants()
    index = np.array([3, 7])
    one = np.ones(2)
    measured = Measurements(index, 0 * one, np.log([1.3, 0.9]), 0 * one, index, one, one)
    law = fit_setting_law(FEATURES, measured)
    drawn = law.draw(500, np.random.default_rng(0))[:, index]
    assert np.abs(drawn.mean(axis=0) - np.log([1.3, 0.9])).max() < 5 * constants["final_sd"] + 0.02
    assert drawn.std(axis=0).max() < 3 * constants["final_sd"] + 0.05


def test_where_runs_do_not_differ_small_differences_are_predicted():
    rng = np.random.default_rng(1)
    planned = plan_measurements(rng)
    measured, _ = draw_study(planned, rng, amplitude=0.02)
    varied, _ = draw_study(planned, np.random.default_rng(2), amplitude=1.0)
    constants = {**load_constants(), "evidence_power": 1.0}
    laws = [fit_setting_law(FEATURES, each, constants) for each in (measured, varied)]
    spread = [np.ptp(law.draw(400, rng).mean(axis=0)) for law in laws]
    assert spread[0] < spread[1] / 3


def test_without_measurements_settings_are_compared_by_the_prior_alone():
    law = fit_setting_law(FEATURES, Measurements.none())
    drawn = law.draw(300, np.random.default_rng(0))
    assert drawn.shape == (300, len(SETTINGS)) and np.isfinite(drawn).all()


def test_the_order_of_measurements_changes_nothing():
    rng = np.random.default_rng(3)
    measured, _ = draw_study(plan_measurements(rng), rng)
    order = rng.permutation(len(measured.setting_N))
    shuffled = Measurements(*(getattr(measured, each.name)[order] for each in dataclasses.fields(Measurements)))
    one, other = fit_setting_law(FEATURES, measured), fit_setting_law(FEATURES, shuffled)
    assert np.allclose(one.mean_AC, other.mean_AC, atol=1e-8)
    assert np.allclose(one.weight_A, other.weight_A, atol=1e-8)
