import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marslora.core.allocation import Allocation
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.laws.fitted_curve import find_convergence, fit_curve

TIMES = tuple(int(t) for t in [0, *np.geomspace(20, 2000, 11)])


def run_of(losses, times=TIMES, status="complete", allocation=None, data=500):
    member = MemberSpec(
        id=f"m{allocation}{data}",
        allocation=allocation or Allocation.of(one=8),
        data_examples=data,
        until_examples=times[-1] if times else 0,
    )
    return Run(member=member, status=status, examples=tuple(times), validation_loss=tuple(map(float, losses)))


def decay(times, tau, power=1.0, floor=1.0, gain=1.0):
    return floor + gain * (1 + np.asarray(times, dtype=float) / tau) ** -power


def test_convergence_time_of_a_known_curve():
    # (1 + t / tau)^-1 = 0.1 at t = 9 tau.
    found = find_convergence(fit_curve(run_of(decay(TIMES, tau=50.0))))
    assert not found.censored
    assert found.examples == pytest.approx(450, rel=0.05)


def test_a_run_that_has_not_got_there_is_censored_at_its_end():
    found = find_convergence(fit_curve(run_of(decay(TIMES, tau=1500.0))))
    assert found.censored and found.examples == TIMES[-1]


@given(scale=st.sampled_from([3, 10, 64]), tau=st.floats(30, 150))
@settings(max_examples=10, deadline=None)
def test_time_is_measured_in_the_units_of_the_run(scale, tau):
    wobble = 1 + 0.003 * np.sin(3.0 * np.arange(len(TIMES)))
    losses = decay(TIMES, tau) * wobble
    one = find_convergence(fit_curve(run_of(losses)))
    other = find_convergence(fit_curve(run_of(losses, tuple(scale * t for t in TIMES))))
    assert other.censored == one.censored
    assert other.examples == pytest.approx(scale * one.examples, rel=1e-6)


@given(seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_noise_moves_the_convergence_time_little(seed):
    rng = np.random.default_rng(seed)
    losses = decay(TIMES, tau=50.0) * np.exp(0.005 * rng.normal(size=len(TIMES)))
    found = find_convergence(fit_curve(run_of(losses)), share=0.75)
    assert 150 / 1.6 < found.examples < 150 * 1.6


def test_a_curve_that_turns_up_has_converged_at_its_minimum_at_the_latest():
    times = np.asarray(TIMES, dtype=float)
    losses = decay(times, 40.0, 2.0) + 0.3 * np.maximum(times / 500 - 1, 0)
    curve = fit_curve(run_of(losses))
    assert curve.status == "turned_up"
    assert curve.floor() == pytest.approx(losses.min(), rel=0.03)
    assert find_convergence(curve).examples <= times[losses.argmin()] * 1.01


def test_a_run_that_does_not_learn_is_flat_and_censored():
    rng = np.random.default_rng(0)
    curve = fit_curve(run_of(2.0 * np.exp(0.01 * rng.normal(size=len(TIMES)))))
    assert curve.status == "flat"
    assert find_convergence(curve).censored


def test_a_warm_up_plateau_is_followed():
    times = np.asarray(TIMES, dtype=float)
    losses = 1 + 1 / (1 + (times / 200) ** 3)
    curve = fit_curve(run_of(losses))
    assert np.abs(np.log(curve.value(times) / losses)).max() < 0.01


@pytest.mark.parametrize(
    ("losses", "times"),
    [
        ((), ()),
        ((1.0,), (0,)),
        ((float("nan"),) * 5, (0, 1, 2, 3, 4)),
        ((1.0, 0.9, 0.8), (0, 5, 10)),
        ((1.0, 2.0), (0, 0)),
    ],
)
def test_garbage_has_no_convergence_time(losses, times):
    assert find_convergence(fit_curve(run_of(losses, times))) is None


def test_a_diverged_run_has_no_convergence_time():
    assert find_convergence(fit_curve(run_of(decay(TIMES, 50.0), status="diverged"))) is None


def test_infinite_values_are_left_out():
    losses = decay(TIMES, 50.0)
    losses[4] = np.inf
    assert find_convergence(fit_curve(run_of(losses))).examples == pytest.approx(450, rel=0.05)
