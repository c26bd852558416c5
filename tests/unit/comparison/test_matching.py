"""Methods are made equal by the nearest rung of a ladder in their own proportions."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marslora.comparison.matching import (
    build_proportional_ladder,
    convert_flops_to_examples,
    find_nearest,
    make_allocation,
)
from marslora.core.allocation import Allocation
from marslora.core.errors import ConfigError
from tests.helpers.fake_training import INFO

shapes = st.fixed_dictionaries(
    {"vision": st.integers(0, 64), "projector": st.integers(1, 64), "language": st.integers(0, 64)}
).map(Allocation.of)


@given(shapes, st.integers(1, 40_000), st.integers(1, 5))
def test_the_count_reached_is_the_nearest_on_the_ladder(shape, wanted, factor):
    counts = [factor * INFO.num_trainable(each) for each in build_proportional_ladder(shape)]
    reached = counts[find_nearest(counts, wanted)]
    assert all(abs(reached - wanted) <= abs(count - wanted) for count in counts)


@given(shapes)
def test_a_ladder_rises_and_keeps_its_proportions(shape):
    rungs = build_proportional_ladder(shape)
    largest = max(rank for _, rank in shape.ranks)
    assert rungs[largest - 1] == shape
    for lower, higher in itertools.pairwise(rungs):
        assert all(lower[part] <= higher[part] for part in shape.parts)
    for top, rung in enumerate(rungs, start=1):
        assert max(rank for _, rank in rung.ranks) == top
        for part in shape.parts:
            assert (rung[part] == 0) == (shape[part] == 0)
            assert rung[part] <= 1 or abs(rung[part] - shape[part] * top / largest) <= 0.5


@given(st.integers(1, 10**6), st.floats(0.1, 10), st.integers(1, 64))
def test_equal_operations_are_equal_to_half_a_batch(examples, ratio, batch):
    found = convert_flops_to_examples(examples * 1e9, ratio * 1e9, batch)
    assert found % batch == 0
    assert found == batch or abs(found * ratio - examples) <= ratio * batch / 2 * (1 + 1e-9)


def test_one_rank_is_for_every_part_that_is_not_trained_whole():
    assert make_allocation(8, INFO) == Allocation.of(vision=8, projector=8, language=8)
    assert make_allocation(8, INFO, ("projector",)) == Allocation.of(vision=8, language=8)
    assert make_allocation({"language": 4}, INFO) == Allocation.of(language=4)


@pytest.mark.parametrize(("ranks", "said"), [({"audio": 4}, "audio"), ({"vision": 0}, "at least one"), (-1, "between")])
def test_ranks_that_mean_nothing_are_refused(ranks, said):
    with pytest.raises(ConfigError, match=said):
        make_allocation(ranks, INFO)
