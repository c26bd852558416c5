"""What is said of a choice at the end of what was searched."""

from marslora.core.allocation import Allocation, Space
from marslora.core.corners import describe_corners
from marslora.core.setting import Setting

SPACE = Space.of({"vision": (0, 4, 16), "projector": (16,), "language": (4, 16, 64)})
RATES = (4.2e-4, 1.7e-3, 6.8e-3)


def describe(vision, language, rate, max_rank=None):
    allocation = Allocation.of(vision=vision, projector=16, language=language)
    return describe_corners(Setting(allocation=allocation, learning_rate=rate), SPACE, RATES, max_rank)


def test_the_largest_rank_of_a_searched_part_is_said_unless_it_is_the_largest_that_is_allowed():
    corner = "Rank 64 is the largest of language: larger ones (--ranks) may be better."
    assert describe(4, 64, 1.7e-3) == (corner,)
    assert describe(4, 64, 1.7e-3, max_rank=64) == ()
    assert describe(16, 16, 1.7e-3) == ("Rank 16 is the largest of vision: larger ones (--ranks) may be better.",)
    assert describe(0, 4, 1.7e-3) == ()


def test_the_first_and_the_last_rate_are_said():
    highest = "0.0068 is the highest learning rate: higher ones (--learning-rate) may be better."
    assert describe(4, 16, 6.8e-3) == (highest,)
    assert "is the lowest learning rate: lower ones" in describe(4, 16, 4.2e-4)[0]
    setting = Setting(allocation=Allocation.of(vision=4, projector=16, language=16), learning_rate=1e-3)
    assert describe_corners(setting, SPACE, (1e-3,)) == ()
