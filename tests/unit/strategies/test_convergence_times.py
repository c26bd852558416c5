import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marslora.core.allocation import Space
from marslora.core.decision import Interval, LawFit
from marslora.strategies._convergence_times import predict_times, solve_closed_forms

SPACE = Space.of({"one": (2, 4, 8, 16, 32), "two": (2, 4, 8, 16, 32)})


def law(subject, scale=100.0, alpha=0.5, beta=0.5, floor=1e-9, draws=()):
    values = {"A": scale, "E": floor, "alpha": alpha, "beta": beta}
    return LawFit(
        law="convergence",
        subject=subject,
        variant="floor",
        form="T = E + A (rank/8)^-alpha (data/1000)^beta",
        status="converged",
        parameters={name: Interval(value=value, low=value, high=value) for name, value in values.items()},
        references={"rank": 8.0, "data": 1000.0},
        draws=draws,
    )


def laws(**more):
    return {"one": law("one", **more), "two": law("two", scale=50.0)}


def test_imbalance_is_zero_where_the_times_agree():
    candidates = tuple(SPACE.allocations())
    found = predict_times(candidates, {"one": law("one"), "two": law("two")}, 1000.0, seed=0)
    by_allocation = dict(zip(candidates, found.imbalance_C, strict=True))
    for allocation, imbalance in by_allocation.items():
        expected = 0.5 * abs(np.log(allocation["one"] / allocation["two"]))
        assert imbalance == pytest.approx(expected, abs=1e-9)


def test_the_description_names_the_slow_part_and_the_ratio():
    candidates = tuple(SPACE.allocations())
    found = predict_times(candidates, laws(), 1000.0, seed=0)
    words = found.describe_imbalance(next(c for c, a in enumerate(candidates) if a.as_dict() == {"one": 8, "two": 8}))
    assert words.startswith("one would converge 2x later than two")


def test_parts_left_alone_do_not_count():
    space = Space.of({"one": (0, 8), "two": (8,)})
    found = predict_times(tuple(space.allocations()), laws(), 1000.0, seed=0)
    assert found.imbalance_C.tolist() == pytest.approx([0.0, np.log(2.0)])
    assert set(found.times_of(0)) == {"two"}
    assert "fewer than two" in found.describe_imbalance(0)


def test_the_least_imbalance_is_always_kept_and_tolerance_widens_the_set():
    found = predict_times(tuple(SPACE.allocations()), laws(), 1000.0, seed=0)
    tight, wide = found.select_balanced(np.log(1.01)), found.select_balanced(np.log(3.0))
    assert tight[found.imbalance_C.argmin()]
    assert 1 <= tight.sum() < wide.sum() < len(SPACE)


@given(alpha=st.floats(0.1, 2.0), scale=st.floats(20, 500), data=st.floats(100, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_closed_form_is_where_the_two_laws_meet(alpha, scale, data):
    found = {"one": law("one", scale=scale, alpha=alpha), "two": law("two", scale=50.0)}
    for form in solve_closed_forms(SPACE, found, data):
        assert form.status in ("solved", "outside_ladder")
        rank_of = {form.part: form.rank, form.given: form.given_rank}
        times = {
            "one": scale * (rank_of["one"] / 8) ** -alpha * (data / 1000) ** 0.5,
            "two": 50.0 * (rank_of["two"] / 8) ** -0.5 * (data / 1000) ** 0.5,
        }
        assert times["one"] == pytest.approx(times["two"], rel=1e-6)


def test_a_floor_above_the_other_parts_time_has_no_real_solution():
    forms = solve_closed_forms(SPACE, laws(floor=1e6), 1000.0)
    mine = [form for form in forms if form.part == "one"]
    assert {form.status for form in mine} == {"no_real_solution"}
    assert all(form.rank is None and "no rank" in form.message for form in mine)


def test_a_rank_that_moves_nothing_and_a_law_that_failed_have_their_status():
    assert {f.status for f in solve_closed_forms(SPACE, laws(alpha=0.0), 1e3) if f.part == "one"} == {
        "no_real_solution"
    }
    failed = LawFit(law="convergence", subject="one", form="none", status="failed", message="no runs")
    forms = solve_closed_forms(SPACE, {"one": failed, "two": law("two")}, 1000.0)
    assert {form.status for form in forms} == {"law_failed"}
