"""Families are compared at equal cost, on common instances, with intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from marslora.replay.benchmark import ReplayScore
from marslora.replay.ranking import FamilyCurve, bootstrap_mean, build_family_curves, measure_reliability, rank_families

INSTANCES = [(f"t{n}", 0, 1.0) for n in range(4)]


def score(family, instance, cost, regret, setting="", **more):
    table, seed, max_share = instance
    values = {
        "table": table, "seed": seed, "max_share": max_share, "family": family, "setting": setting, "cost": cost,
        "calibration": cost - 1, "seconds": 1.0, "regret": regret, "median_regret": 1.0, "chosen": {"eye": 2},
        "is_best": regret == 0, "p_best": None, "num_plausible": 1, "covers": regret == 0, "covers_best": regret == 0,
        "indistinguishable": False, "num_rounds": 1,
    }  # fmt: skip
    return ReplayScore.model_validate({**values, **more})


@st.composite
def family_curves(draw):
    costs = sorted(draw(st.lists(st.floats(1, 16), min_size=1, max_size=6)))
    regret_SW = draw(arrays(float, (len(costs), 3), elements=st.floats(0, 5)))
    cost_SW = np.repeat(np.array(costs)[:, None], 3, axis=1)
    return FamilyCurve("f", tuple(map(str, costs)), tuple(INSTANCES[:3]), cost_SW, regret_SW)


@given(curve=family_curves(), costs=st.tuples(st.floats(0.5, 20), st.floats(0.5, 20)))
def test_a_larger_cost_never_means_more_regret(curve, costs):
    less, more = (curve.regret_at(cost) for cost in sorted(costs))
    if less is not None:
        assert more is not None and more.mean() <= less.mean() + 1e-9


@given(curve=family_curves())
def test_a_setting_is_found_at_its_own_cost_unless_a_cheaper_one_is_better(curve):
    assert curve.regret_at(curve.cost_S[0] - 0.1) is None
    for n, cost in enumerate(curve.cost_S):
        assert curve.regret_at(cost).mean() <= curve.regret_SW[: n + 1].mean(axis=1).min() + 1e-9


def test_regret_is_interpolated_between_two_settings():
    scores = [
        score("a", instance, cost, regret, str(cost))
        for instance in INSTANCES
        for cost, regret in ((1.0, 0.4), (2.0, 0.2))
    ]
    assert build_family_curves(scores)["a"].regret_at(1.5) == pytest.approx([0.3] * 4)
    assert build_family_curves(scores)["a"].settings == ("1.0", "2.0")


def test_families_are_compared_on_the_instances_that_both_have():
    scores = [
        score("reference", instance, 1.4, regret)
        for instance, regret in zip(INSTANCES, (0.1, 0.1, 0.9, 0.9), strict=True)
    ]
    scores += [score("other", instance, 1.2, 0.2) for instance in INSTANCES[:2]]
    rows = {row.family: row for row in rank_families(scores, 1.4, "reference")}
    assert rows["other"].num_instances == 2 and rows["reference"].num_instances == 4
    assert rows["other"].difference.value == pytest.approx(0.1)
    assert rows["reference"].difference is None
    assert [row.family for row in rank_families(scores, 1.4, "reference")] == ["reference", "other"]


def test_an_instance_that_a_setting_lacks_is_left_out_for_its_family():
    scores = [score("a", instance, 1.2, 0.2, "short") for instance in INSTANCES]
    scores += [score("a", instance, 2.0, 0.1, "long") for instance in INSTANCES[1:]]
    assert build_family_curves(scores)["a"].instances == tuple(INSTANCES[1:])


def test_a_reference_that_costs_more_is_taken_at_its_cheapest():
    scores = [score("reference", instance, cost, 0.3, str(cost)) for instance in INSTANCES for cost in (1.5, 2.0)]
    scores += [score("a", instance, 1.1, 0.2) for instance in INSTANCES]
    (row,) = rank_families(scores, 1.15, "reference")
    assert row.reference_cost == pytest.approx(1.5) and row.difference.value == pytest.approx(-0.1)


def test_an_interval_resamples_whole_clusters():
    value_W = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    apart = bootstrap_mean(value_W, list(range(6)))
    together = bootstrap_mean(value_W, [0, 0, 0, 1, 1, 1])
    assert apart.value == together.value == 0.5
    assert (together.low, together.high) == (0.0, 1.0)
    assert together.low < apart.low < 0.5 < apart.high < together.high


def test_reliability_compares_stated_probabilities_with_outcomes():
    told = [(0.1, 0.3), (0.15, 0.0), (1.0, 0.0), (0.95, 0.0)]
    scores = [
        score("a", instance, 1.2, regret, p_best=said, num_plausible=2, indistinguishable=said < 0.5)
        for instance, (said, regret) in zip(INSTANCES, told, strict=True)
    ]
    found = measure_reliability([*scores, score("b", INSTANCES[0], 1.2, 0.1)], "a")
    assert [(each.num, each.best) for each in found.bins] == [(2, 0.5), (2, 1.0)]
    assert found.bins[1].stated == pytest.approx(0.975)
    assert (found.num, found.coverage, found.coverage_best, found.mean_plausible) == (4, 0.75, 0.75, 2.0)
    assert found.indistinguishable == {"t0": 1.0, "t1": 1.0, "t2": 0.0, "t3": 0.0}
    assert measure_reliability([score("b", INSTANCES[0], 1.2, 0.1)], "b") is None
