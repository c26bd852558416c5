"""Where a choice does not matter, its cheapest value is taken; where it may matter, nothing is dropped."""

import numpy as np
import pytest

from marslora.core.allocation import Space
from marslora.core.decision import Effect
from marslora.strategies._knobs import ALIKE_SHARE
from marslora.strategies._needless import drop_needless_ranks
from marslora.strategies._problem import Problem

PROBLEM = Problem(
    space=Space.of({"vision": (0, 4, 16), "language": (0, 4, 16)}),
    num_train=100,
    full_examples=200,
    batch_size=4,
    count_parameters=lambda allocation: sum(allocation.as_dict().values()),
    learning_rates=(5e-4, 1e-3, 2e-3),
)
CANDIDATES = PROBLEM.candidates()
GAIN = 1.0


def find(vision, language):
    return next(
        c
        for c, each in enumerate(CANDIDATES)
        if each.allocation.as_dict() == {"vision": vision, "language": language} and each.learning_rate == 1e-3
    )


def make_effect(knob, verdict):
    interval = {"value": 0.0, "low": 0.0, "high": 0.0, "level": 0.9}
    return Effect.model_validate(
        {"knob": knob, "nats": interval, "share": interval, "best": "4", "worst": "16", "verdict": verdict}
    )


def drop(verdicts, cost_of=lambda allocation: 0.0):
    loss_C = np.array([1.0 + cost_of(each.allocation) for each in CANDIDATES])
    effects = [make_effect(knob, verdict) for knob, verdict in verdicts.items()]
    chosen = drop_needless_ranks(PROBLEM, find(16, 16), effects, np.tile(loss_C, (100, 1)), GAIN)
    assert CANDIDATES[chosen].learning_rate == 1e-3
    return CANDIDATES[chosen].allocation.as_dict()


def test_nothing_is_dropped_where_everything_may_matter():
    assert drop({"training vision": "unresolved", "vision rank": "matters"}) == {"vision": 16, "language": 16}


def test_a_tower_whose_training_does_not_matter_is_left_as_it_is():
    assert drop({"training vision": "does not matter"}) == {"vision": 0, "language": 16}


def test_a_rank_that_does_not_matter_is_the_smallest_one_above_zero():
    assert drop({"vision rank": "does not matter"}) == {"vision": 4, "language": 16}


def test_where_anything_matters_only_whole_towers_are_dropped():
    alike = {"vision rank": "does not matter", "language rank": "does not matter"}
    assert drop({"learning rate": "matters", **alike}) == {"vision": 16, "language": 16}
    assert drop({"learning rate": "matters", "training vision": "does not matter", **alike}) == {
        "vision": 0,
        "language": 16,
    }


def test_the_language_model_is_never_left_untrained_to_save():
    dropped = drop({"training language": "does not matter", "language rank": "does not matter"})
    assert dropped == {"vision": 16, "language": 4}


@pytest.mark.parametrize(("share", "language"), [(0.4, 4), (0.9, 16)])
def test_what_is_dropped_together_must_not_matter(share, language):
    """Each of two choices costs a share of what matters; the second one is dropped only if both together do not."""

    def cost_of(allocation):
        return ALIKE_SHARE * GAIN * share * ((allocation["language"] < 16) + (allocation["vision"] == 0))

    dropped = drop({"training vision": "does not matter", "language rank": "does not matter"}, cost_of)
    assert dropped == {"vision": 0, "language": language}
