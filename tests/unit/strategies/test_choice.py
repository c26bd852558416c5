import numpy as np
import pytest

from marslora.strategies._choice import choose_candidate


def draws(means, spread, seed=0, num=4000):
    return np.array(means) + spread * np.random.default_rng(seed).normal(size=(num, len(means)))


def everyone(num):
    return np.ones(num, dtype=bool)


def test_a_clear_winner_stands_alone():
    choice = choose_candidate(draws([1.0, 1.2, 1.3], 0.01), everyone(3), [3, 2, 1], resolution=0.01, indifference=0.001)
    assert (choice.chosen, choice.best, choice.tied, choice.plausible) == (0, 0, (0,), (0,))
    assert choice.is_clear
    assert choice.p_best_C.tolist() == [1.0, 0.0, 0.0]


def test_equal_candidates_are_tied_and_the_cheapest_is_chosen():
    choice = choose_candidate(draws([1.0] * 4, 0.01), everyone(4), [4, 2, 1, 3], resolution=0.02, indifference=0.001)
    assert set(choice.tied) == {0, 1, 2, 3} and choice.tied[0] == 2
    assert choice.chosen == 2 and choice.chosen in choice.plausible
    assert not choice.is_clear
    assert choice.p_best_C.sum() == pytest.approx(1.0)


def test_a_cheaper_twin_is_taken_and_a_cheaper_worse_one_is_not():
    means = [1.0, 1.0005, 1.05, 1.3, 1.4, 1.5]
    choice = choose_candidate(draws(means, 0.003), everyone(6), [9, 5, 1, 1, 1, 1], resolution=0.01, indifference=0.002)
    assert (choice.best, choice.chosen) == (0, 1)
    assert 2 not in choice.tied


def test_ineligible_candidates_have_no_part_in_it():
    eligible = np.array([False, True, True])
    choice = choose_candidate(draws([0.5, 1.0, 1.2], 0.01), eligible, [1, 1, 1], resolution=0.1, indifference=0.1)
    assert choice.chosen == 1
    assert choice.p_best_C[0] == 0.0
    assert choice.regret_C[1] == pytest.approx(0.0, abs=1e-3)


def test_the_plausible_set_holds_nine_tenths_and_no_more_than_it_must():
    choice = choose_candidate(
        draws([1.0, 1.0, 1.05, 2.0], 0.02), everyone(4), [1, 1, 1, 1], resolution=0.0, indifference=0.0
    )
    held = choice.p_best_C[list(choice.plausible)].sum()
    assert held >= 0.9
    assert held - choice.p_best_C[choice.plausible[-1]] < 0.9
    assert 3 not in choice.plausible
