"""Learning rates as users write them, and the ladder of those who write none."""

import pytest

from marslora.core.rates import find_adamw_rate, read_part_rates, read_rates, spread_rates


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (1e-3, 1e-3),
        ("1e-3", 1e-3),
        ("auto", "auto"),
        ("5e-4,1e-3, 2e-3", (5e-4, 1e-3, 2e-3)),
        ([5e-4, "1e-3"], (5e-4, 1e-3)),
        ([1e-3], 1e-3),
        (1, 1.0),
    ],
)
def test_a_learning_rate_is_a_number_a_ladder_or_auto(written, read):
    assert read_rates(written) == read


@pytest.mark.parametrize(
    "wrong", [0, -1e-3, float("nan"), float("inf"), "", "fast", "1e-3,,2e-3", [], [True], None, {}]
)
def test_anything_else_is_refused_with_an_example(wrong):
    with pytest.raises(ValueError, match=r"must be a number above 0 such as 1e-3, a ladder such as .*, or auto, found"):
        read_rates(wrong)


@pytest.mark.parametrize("wrong", ["2e-3,1e-3", "1e-3,1e-3", [1e-3, 5e-4]])
def test_a_ladder_must_increase(wrong):
    with pytest.raises(ValueError, match="must be a ladder that increases, without repeats, such as"):
        read_rates(wrong)


def test_rates_of_parts_are_numbers_or_auto():
    expected = {"vision": "auto", "projector": 1e-4}
    assert read_part_rates(["vision=auto", "projector=1e-4"]) == expected
    assert read_part_rates({"vision": "auto", "projector": "1e-4"}) == expected
    assert read_part_rates("vision=auto") == {"vision": "auto"}


@pytest.mark.parametrize("wrong", [{"vision": 0}, {"vision": float("nan")}, {"vision": "1e-4,2e-4"}, {"vision": None}])
def test_a_wrong_rate_of_a_part_names_the_part(wrong):
    with pytest.raises(ValueError, match="must be a number above 0 or auto for vision, found"):
        read_part_rates(wrong)


def test_auto_is_centred_on_what_suits_adamw_and_spans_a_factor_of_four_either_way():
    assert spread_rates(find_adamw_rate(128, 2.0)) == (4.2e-4, 8.5e-4, 1.7e-3, 3.4e-3, 6.8e-3)
    assert find_adamw_rate(4096, 2.0) == pytest.approx(3e-4)
    assert find_adamw_rate(4096, 0.5) == pytest.approx(6e-4)
