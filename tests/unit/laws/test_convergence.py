import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.laws.test_curve import TIMES, decay, run_of

from marslora.core.allocation import Allocation
from marslora.core.decision import LawPoint
from marslora.laws import convergence
from marslora.laws.convergence import ConvergenceLaw

RANKS, SIZES = (2, 4, 8, 16, 32), (100.0, 400.0, 1600.0)


def points_from(time_of, ranks=RANKS, sizes=SIZES, limit=np.inf, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    points = []
    for rank in ranks:
        for data in sizes:
            true = time_of(rank, data) * float(np.exp(noise * rng.normal()))
            points.append(
                LawPoint(
                    run=f"{rank}.{data}",
                    inputs={"rank": rank, "data": data},
                    measured=min(true, limit),
                    predicted=float("nan"),
                    censored=true > limit,
                )
            )
    return points


def power_law(scale=300.0, alpha=0.5, beta=0.6, floor=50.0):
    return lambda rank, data: scale * (rank / 8) ** -alpha * (data / 400) ** beta + floor


@given(alpha=st.floats(0.2, 1.0), beta=st.floats(0.3, 1.0), floor=st.floats(0, 80))
@settings(max_examples=12, deadline=None)
def test_clean_times_give_their_law_back(alpha, beta, floor):
    fit = ConvergenceLaw().fit(points_from(power_law(300.0, alpha, beta, floor)), "one")
    assert fit.status == "converged"
    assert fit.parameters["alpha"].value == pytest.approx(alpha, abs=0.02)
    assert fit.parameters["beta"].value == pytest.approx(beta, abs=0.02)
    assert fit.residual < 1e-3
    assert fit.gradient < 1e-6


@given(scale=st.floats(0.01, 1e4))
@settings(max_examples=8, deadline=None)
def test_the_unit_of_time_does_not_matter(scale):
    points = points_from(power_law(), noise=0.1)
    scaled = [point.model_copy(update={"measured": point.measured * scale}) for point in points]
    one, other = ConvergenceLaw().fit(points, "one"), ConvergenceLaw().fit(scaled, "one")
    assert convergence.predict(other, 8, 6400) == pytest.approx(scale * convergence.predict(one, 8, 6400), rel=1e-3)


def test_intervals_cover_under_noise():
    true, covered = power_law(floor=0.0), 0
    for seed in range(30):
        fit = ConvergenceLaw().fit(points_from(true, noise=0.15, seed=seed), "one", seed)
        found = convergence.band(fit, 8, 400)
        covered += found.low <= true(8, 400) <= found.high
    assert covered >= 22


def test_censored_points_pull_the_law_up():
    law = power_law(floor=0.0)
    seen = points_from(law, limit=600.0)
    assert any(point.censored for point in seen)
    dropped = [point for point in seen if not point.censored]
    taken_as_measured = [point.model_copy(update={"censored": False}) for point in seen]
    honest, naive = (ConvergenceLaw().fit(points, "one") for points in (seen, taken_as_measured))
    target = law(2, 1600)
    assert target > 1000
    assert convergence.predict(honest, 2, 1600) == pytest.approx(target, rel=0.15)
    assert convergence.predict(naive, 2, 1600) < 0.75 * target
    assert len(dropped) < len(seen)


def test_a_bound_below_the_law_says_nothing():
    points = points_from(power_law())
    idle = LawPoint(run="idle", inputs={"rank": 8, "data": 400}, measured=1.0, predicted=float("nan"), censored=True)
    one, other = ConvergenceLaw().fit(points, "one"), ConvergenceLaw().fit([*points, idle], "one")
    assert convergence.predict(other, 16, 400) == pytest.approx(convergence.predict(one, 16, 400), rel=1e-3)


def test_one_data_size_leaves_beta_out_and_says_so():
    fit = ConvergenceLaw().fit(points_from(power_law(), sizes=(400.0,)), "one")
    assert fit.status == "unidentified"
    assert "beta is not identified" in fit.message and "400" in fit.message
    assert "beta" not in fit.parameters and "alpha" in fit.parameters
    assert convergence.predict(fit, 8, 400) == pytest.approx(350, rel=0.02)


def test_equal_times_identify_nothing():
    fit = ConvergenceLaw().fit(points_from(lambda rank, data: 500.0), "one")
    assert fit.status == "unidentified" and "neither rank nor data" in fit.message
    assert convergence.predict(fit, 3, 999) == pytest.approx(500, rel=1e-3)


def test_runs_that_all_were_still_learning_give_no_law():
    fit = ConvergenceLaw().fit(points_from(power_law(), limit=1.0), "one")
    assert fit.status == "failed" and "train longer" in fit.message
    assert np.isnan(convergence.predict(fit, 8, 400))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 8, 64]), st.sampled_from([0.0, 1.0, 500.0]), st.floats(allow_nan=True), st.booleans()
        ),
        max_size=6,
    )
)
@settings(max_examples=40, deadline=None)
def test_garbage_gets_a_status(rows):
    points = [
        LawPoint(run=str(n), inputs={"rank": r, "data": d}, measured=t, predicted=float("nan"), censored=c)
        for n, (r, d, t, c) in enumerate(rows)
    ]
    fit = ConvergenceLaw(ConvergenceLaw.Config(num_bootstraps=20)).fit(points, "one")
    assert fit.status in ("converged", "unidentified", "failed")
    assert fit.message or fit.status == "converged"


def test_points_of_runs_share_the_floor_of_their_rows():
    runs = [run_of(decay(TIMES, 400.0 / rank), allocation=Allocation.of(one=rank, two=0)) for rank in (2, 4, 8, 16)]
    points = convergence.make_points(runs, "one")
    assert [point.inputs["rank"] for point in points] == [2, 4, 8, 16]
    assert [point.inputs["data"] for point in points] == [500] * 4
    times = [point.measured for point in points]
    assert times == sorted(times, reverse=True)
    # T = 9 tau: halving with each doubling of the rank.
    assert times[2] / times[3] == pytest.approx(2.0, rel=0.1)
