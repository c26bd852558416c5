"""The joint law on curves that obey it: one curve, gone through at different speeds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marslora.laws import joint

PLACES = np.array([[a, b] for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)])


def falling(log_t):
    """Log loss of the reference speed: from 1.8 down a power law to a floor of 0.1."""
    return np.log(0.1 + 6.0 / (1 + np.exp(log_t - 4.0)) ** 0.8)


def turning(log_t):
    """Falls until log t = 6.5, then rises."""
    return np.where(log_t < 6.5, -0.4 * (log_t - 4.0), -1.0 + 0.2 * (log_t - 6.5))


def delay(x_CM):
    return -0.6 * x_CM[:, 0] - 0.2 * x_CM[:, 1] + 0.1 * x_CM[:, 0] ** 2


def cells(curve, last, places=PLACES):
    log_t = np.linspace(3.0, last, 12)
    return [joint.RunCurve(x, log_t, curve(log_t - d)) for x, d in zip(places, delay(places), strict=True)]


def draw_losses(curves, log_t, log_rows=20.0, num=2000, places=PLACES):
    return joint.fit_joint_law(curves).draw_losses(places, log_t, log_rows, num, np.random.default_rng(0), 0.5)


def test_delays_are_read_off_the_curves():
    law = joint.fit_joint_law(cells(falling, 6.0))
    fastest = delay(PLACES).min()
    for x, expected in zip(PLACES, delay(PLACES) - fastest, strict=True):
        assert law.delays[tuple(x)].value == pytest.approx(expected, abs=0.08)


def test_the_fastest_is_predicted_to_be_best_while_the_loss_falls():
    loss_SC = draw_losses(cells(falling, 5.0), 6.0)
    assert loss_SC.mean(axis=0).argmin() == delay(PLACES).argmin()


def test_runs_seen_beyond_the_time_asked_for_leave_no_doubt_of_the_best():
    loss_SC = draw_losses(cells(falling, 7.0), 6.0)
    assert np.isfinite(loss_SC).all()
    assert loss_SC.mean(axis=0).argmin() == delay(PLACES).argmin()


def test_what_was_not_measured_is_predicted_from_the_others():
    measured = [n for n in range(9) if n != 5]
    law = joint.fit_joint_law(cells(falling, 6.0, PLACES[measured]))
    predicted = law.mean_Q @ joint.build_features(PLACES[[5]])[0]
    assert predicted == pytest.approx(delay(PLACES)[5] - delay(PLACES).min(), abs=0.15)


def test_a_floor_that_the_fast_have_reached_awaits_the_slow():
    spread_early = np.ptp(draw_losses(cells(falling, 5.0), 5.5).mean(axis=0))
    at_the_floor = draw_losses(cells(falling, 12.0), 14.0)
    assert np.ptp(at_the_floor.mean(axis=0)) < 0.05 * spread_early


def test_where_the_fast_turned_the_slower_turn_higher_but_later():
    early = [joint.RunCurve(c.x_M, c.log_t_N[:6], c.y_N[:6]) for c in cells(turning, 7.0)]
    fastest = int(delay(PLACES).argmin())
    early[fastest] = cells(turning, 8.0)[fastest]
    behind = delay(PLACES) - delay(PLACES)[fastest]
    loss_SC = draw_losses(early, 20.0)
    loss_C = loss_SC.mean(axis=0)
    assert loss_C[fastest] == pytest.approx(early[fastest].y_N.min(), abs=0.04)
    assert np.corrcoef(loss_C, behind)[0, 1] > 0.95
    at_the_time = turning(6.5 - behind.max())
    assert loss_C[fastest] + 0.05 < loss_C[behind.argmax()] < at_the_time - 0.05
    assert loss_SC[:, behind.argmax()].std() > 2 * loss_SC[:, fastest].std()


def test_many_passes_end_the_fall_and_one_pass_does_not():
    curves, fastest = cells(falling, 5.0), int(delay(PLACES).argmin())
    once = draw_losses(curves, 7.0, log_rows=7.0)
    often = draw_losses(curves, 7.0, log_rows=7.0 - np.log(30))
    assert often[:, fastest].mean() > once[:, fastest].mean() + 0.1
    assert often[:, fastest].std() > once[:, fastest].std()
    assert often.mean(axis=0).argmin() == fastest


def test_the_lowest_so_far_is_what_counts_however_long_it_lasts():
    loss_C = draw_losses(cells(turning, 9.0), 9.0).mean(axis=0)
    assert draw_losses(cells(turning, 9.0), 12.0).mean(axis=0) == pytest.approx(loss_C, abs=0.03)


@settings(max_examples=15, deadline=None)
@given(st.floats(-2, 2), st.floats(-3, 3))
def test_units_of_time_and_loss_do_not_matter(later, louder):
    plain = cells(falling, 6.0)
    moved = [joint.RunCurve(c.x_M, c.log_t_N + later, c.y_N + louder) for c in plain]
    one = draw_losses(plain, 7.0, log_rows=5.0, num=50)
    other = draw_losses(moved, 7.0 + later, log_rows=5.0 + later, num=50)
    assert np.allclose(one, other - louder, atol=1e-6)
