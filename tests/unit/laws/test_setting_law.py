"""The law of settings against its own prior, against exact knowledge, and in its coordinates."""

import dataclasses

import numpy as np
import pytest

from marslora.core.allocation import Space
from marslora.core.errors import ConfigError
from marslora.core.setting import Setting
from marslora.laws import Measurements, SettingLaw, fit_setting_law, make_features
from marslora.laws.setting_curve import Times, compute_log_losses, list_parameters
from marslora.laws.setting_kernel import compute_departures, compute_noise, compute_surprise
from marslora.laws.setting_law import Study, load_constants, make_points, make_prior

SPACE = Space.of({"eye": (0, 4, 16, 64), "language": (4, 16, 64)})
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


def draw_study(planned, rng):
    """Values of the planned measurements and of the best losses, from the prior of the law itself."""
    constants = load_constants()
    points, prior, num = (
        make_points(FEATURES, planned, constants),
        make_prior(constants, FEATURES),
        len(planned.setting_N),
    )
    value_P = prior.place(rng.normal(size=(1, len(prior.mean_P))), 1.0)
    everything = Times(
        np.concatenate([planned.setting_N, np.arange(len(SETTINGS))]), points.log_share_N, points.is_final_N
    )
    curve_N = compute_log_losses(value_P, FEATURES, everything, 0.0)[0]
    covariance = compute_departures(constants, points) + compute_noise(constants, points)
    covariance += compute_surprise(constants, points, -planned.log_share_N.max())
    value_N = rng.multivariate_normal(curve_N, covariance)
    return dataclasses.replace(planned, log_loss_N=value_N[:num]), value_N[num:]


def measure_coverage(law: SettingLaw, best_C, rng):
    low_C, high_C = np.quantile(law.draw(1000, rng), [0.05, 0.95], axis=0)
    return float(((best_C >= low_C) & (best_C <= high_C)).mean())


def test_intervals_hold_what_they_promise_where_the_prior_is_true():
    rng, constants = np.random.default_rng(0), {**load_constants(), "num_tasks": 1e6}  # studies like the tables
    coverage = []
    for _ in range(40):
        measured, best_C = draw_study(plan_measurements(rng), rng)
        coverage.append(measure_coverage(fit_setting_law(FEATURES, measured, constants), best_C, rng))
    assert 0.82 < np.mean(coverage) < 0.97


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


def predict_prior_mean(features, log_share, is_final):
    size = len(features.log_rate_C)
    times = Times(np.arange(size), np.full(size, log_share), np.full(size, is_final))
    return compute_log_losses(make_prior(load_constants(), features).mean_P[None], features, times, 1.0)[0]


def test_losses_fall_with_time_rank_and_rate_from_that_of_the_untouched_model():
    low = [Setting(allocation=SPACE_USUAL, learning_rate=rate) for rate in (1e-5, 1e-4, 3e-4)]
    ranks = [Setting(allocation=SPACE_USUAL.replace(language=rank), learning_rate=1e-4) for rank in (4, 16, 64)]
    by_rate, by_rank = (
        predict_prior_mean(make_features(each, SPACE.parts, 1e-3, 100), -0.5, 0.0) for each in (low, ranks)
    )
    assert (np.diff(by_rate) < 0).all() and (np.diff(by_rank) < 0).all()
    early, late = (predict_prior_mean(FEATURES, share, 0.0) for share in (-20.0, -0.5))
    assert early == pytest.approx(1.0, abs=0.15) and (late < early).all()


def test_a_high_rate_costs_and_costs_more_with_large_ranks():
    high = [
        Setting(allocation=SPACE_USUAL.replace(eye=rank, language=rank), learning_rate=rate)
        for rank in (16, 64)
        for rate in (1e-3, 3e-2)
    ]
    losses = predict_prior_mean(make_features(high, SPACE.parts, 1e-3, 100), 0.0, 1.0)
    assert losses[3] - losses[2] > losses[1] - losses[0] and losses[3] > losses[2]


def test_two_towers_have_parameters_of_their_own_with_one_prior():
    space = Space.of({"vision": (0, 16), "audio": (0, 16), "language": (16, 64)})
    settings = [Setting(allocation=each, learning_rate=1e-3) for each in space.allocations()]
    features = make_features(settings, space.parts, 1e-3, 100)
    prior, names = make_prior(load_constants(), features), list_parameters(features.parts)
    vision, audio = names.index("share.vision"), names.index("share.audio")
    covariance = prior.root_PP @ prior.root_PP.T
    assert prior.mean_P[vision] == prior.mean_P[audio]
    assert covariance[vision, vision] == pytest.approx(covariance[audio, audio])
    assert abs(covariance[vision, audio]) < covariance[vision, vision]
    assert np.isfinite(fit_setting_law(features, Measurements.none()).draw(50, np.random.default_rng(0))).all()


def test_the_mode_is_where_the_posterior_is_highest():
    measured, _ = draw_study(plan_measurements(np.random.default_rng(5)), np.random.default_rng(5))
    study = Study(FEATURES, measured, load_constants())
    mode, rng = study.find_mode(1.0), np.random.default_rng(0)

    def cost(phi_SP):
        return (study.measure_errors(phi_SP, 1.0) ** 2).sum(axis=1) + (phi_SP**2).sum(axis=1)

    nearby = mode.phi_P + 0.05 * rng.normal(size=(200, len(mode.phi_P)))
    assert (cost(nearby) > cost(mode.phi_P[None]) - 0.02).all()


def test_a_measured_best_loss_is_known():
    index, one = np.array([3, 7]), np.ones(2)
    measured = Measurements(index, 0 * one, np.log([1.3, 0.9]), 0 * one, index, one, one, log_start=1.5)
    drawn = fit_setting_law(FEATURES, measured).draw(500, np.random.default_rng(0))[:, index]
    assert np.abs(drawn.mean(axis=0) - np.log([1.3, 0.9])).max() < 0.02
    assert drawn.std(axis=0).max() < 0.02


def test_where_all_curves_are_flat_and_alike_settings_are_predicted_alike():
    planned = plan_measurements(np.random.default_rng(1), num_settings=12)
    flat = dataclasses.replace(planned, log_loss_N=np.full(len(planned.setting_N), -1.7), log_start=0.9)
    varied, _ = draw_study(planned, np.random.default_rng(2))
    spread = []
    for measured in (flat, varied):
        drawn = fit_setting_law(FEATURES, measured).draw(400, np.random.default_rng(0))
        spread.append(np.median((drawn - drawn.mean(axis=1, keepdims=True)).std(axis=0)))
    assert spread[0] < spread[1]


def test_without_measurements_settings_are_compared_by_the_prior_alone():
    law = fit_setting_law(FEATURES, Measurements.none())
    drawn = law.draw(300, np.random.default_rng(0))
    assert drawn.shape == (300, len(SETTINGS)) and np.isfinite(drawn).all()


def test_the_order_of_measurements_changes_nothing():
    rng = np.random.default_rng(3)
    measured, _ = draw_study(plan_measurements(rng), rng)
    order = rng.permutation(len(measured.setting_N))
    arrays = {each.name: getattr(measured, each.name) for each in dataclasses.fields(measured)}
    log_start = arrays.pop("log_start")
    shuffled = Measurements(**{name: array[order] for name, array in arrays.items()}, log_start=log_start)
    one, other = fit_setting_law(FEATURES, measured), fit_setting_law(FEATURES, shuffled)
    assert np.allclose(one.mean_KC, other.mean_KC, atol=1e-6)
    assert np.allclose(one.weight_K, other.weight_K, atol=1e-6)


@pytest.mark.parametrize("text", ["", "{}", '{"constants": {"slope_sd": 0.1}}'])
def test_a_file_without_the_constants_of_this_law_is_refused(tmp_path, text):
    (tmp_path / "constants.json").write_text(text)
    with pytest.raises(ConfigError, match=r"`constants` must be a file that benchmarks/fit_setting_law.py wrote"):
        load_constants(str(tmp_path / "constants.json"))
