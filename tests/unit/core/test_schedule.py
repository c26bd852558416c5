import pytest
from hypothesis import given
from hypothesis import strategies as st

from marslora.core.allocation import Allocation
from marslora.core.errors import ConfigError
from marslora.core.schedule import (
    evaluation_steps,
    few_evaluation_steps,
    final_evaluation_steps,
    full_examples,
    list_validations,
    num_steps,
    rate_factor,
)
from marslora.core.spec import MAX_VALIDATION_SHARE, VALIDATION_WORK, MemberSpec, TrainingSpec


def test_values_of_a_short_run():
    training = TrainingSpec(warmup=0.2, decay=0.3)
    factors = [rate_factor(step, 10, training, decays=True) for step in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_the_step_after_the_last_has_rate_0():
    assert rate_factor(10, 10, TrainingSpec(decay=0.3), decays=True) == 0


def test_without_warmup_and_decay_the_rate_is_constant():
    training = TrainingSpec(warmup=0, decay=0)
    assert {rate_factor(step, 7, training, decays=True) for step in range(7)} == {1.0}


@given(st.integers(1, 500), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_calibration_run_is_the_beginning_of_the_final_run(total, warmup, decay):
    training = TrainingSpec(warmup=warmup, decay=decay)
    stable = [step for step in range(total) if step < total - decay * total - 1]
    for step in stable:
        assert rate_factor(step, total, training, decays=True) == rate_factor(step, total, training, decays=False)


@given(st.integers(1, 500), st.floats(0, 0.99), st.floats(0, 0.99))
def test_every_step_learns(total, warmup, decay):
    training = TrainingSpec(warmup=warmup, decay=decay)
    assert all(0 < rate_factor(step, total, training, decays=True) <= 1 for step in range(total))


def test_evaluation_points_are_even_in_the_logarithm():
    assert evaluation_steps(1024, 9) == tuple(2**power for power in range(2, 11))
    assert evaluation_steps(128, 7) == tuple(2**power for power in range(1, 8))


@given(st.integers(1, 10**6), st.integers(2, 60))
def test_evaluation_points_rise_from_early_on_to_the_last_step(total, evaluations):
    steps = evaluation_steps(total, evaluations)
    assert list(steps) == sorted(set(steps))
    assert total / 256 <= steps[0] <= max(2, total / 256 + 1)
    assert steps[-1] == total
    assert len(steps) <= evaluations


@given(st.integers(1, 10**6), st.integers(2, 60))
def test_a_final_run_is_looked_at_evenly_as_well(total, evaluations):
    steps = final_evaluation_steps(total, evaluations)
    assert list(steps) == sorted(set(steps)) and steps[-1] == total
    assert steps[0] == min(evaluation_steps(total, evaluations)[0], -(-total // evaluations))
    assert len(steps) <= 2 * evaluations
    gaps = [later - earlier for earlier, later in zip((0, *steps), steps, strict=False)]
    assert max(gaps) <= total / evaluations + 1


@given(st.integers(1, 2000), st.integers(2, 60), st.integers(1, 64), st.integers(0, 2000))
def test_few_validations_take_their_share_and_no_more(total, evaluations, batch_size, rows):
    steps = evaluation_steps(total, evaluations)
    few = few_evaluation_steps(steps, batch_size, rows)
    assert set(few) <= set(steps) and list(few) == sorted(few)
    for number, step in enumerate(few, 1):
        validating = VALIDATION_WORK * rows * number
        assert validating <= MAX_VALIDATION_SHARE * (step * batch_size + validating)
    for step in set(steps) - set(few):  # one more there would have been too many
        validating = VALIDATION_WORK * rows * (sum(each < step for each in few) + 1)
        assert validating > MAX_VALIDATION_SHARE * (step * batch_size + validating)


def test_validations_that_cost_nothing_are_all_made():
    assert few_evaluation_steps((2, 4, 8), 16, 0) == (2, 4, 8)
    assert few_evaluation_steps((2, 4, 8), 16, 10_000) == ()


def test_a_longer_run_begins_with_the_same_few_validations():
    few = few_evaluation_steps(evaluation_steps(512, 20), 16, 128)
    assert 1 < len(few) < 20
    assert few_evaluation_steps([step for step in evaluation_steps(512, 20) if step < 200], 16, 128) == tuple(
        step for step in few if step < 200
    )


@given(st.integers(1, 100), st.integers(1, 400), st.integers(0, 300))
def test_validations_of_a_member_are_those_that_it_asks_for(batch_size, until, rows):
    training = TrainingSpec(batch_size=batch_size)
    full = 400 * batch_size

    def list_all(validations):
        member = MemberSpec(
            id="m",
            allocation=Allocation.of(a=1),
            data_examples=1,
            until_examples=until * batch_size,
            validations=validations,
        )
        return list_validations(member, training, full, rows)

    steps = evaluation_steps(400, training.evaluations)
    regular = [step * batch_size for step in steps if step <= until]
    assert list_all("end") == (until * batch_size,)
    assert list_all("regular") == tuple(sorted({*regular, until * batch_size}))
    few = few_evaluation_steps(steps, batch_size, rows)
    assert list_all("few") == tuple(step * batch_size for step in few if step <= until)


def test_a_last_batch_may_be_short():
    assert [num_steps(examples, 8) for examples in (0, 1, 8, 9)] == [0, 1, 1, 2]


def test_a_batch_of_more_than_all_rows_and_the_whole_run_is_refused():
    assert full_examples(TrainingSpec(examples=5, batch_size=100), 100) == 100
    with pytest.raises(
        ConfigError,
        match=r"`batch_size` must be at most 100, since there are 100 training rows",
    ):
        full_examples(TrainingSpec(examples=5, batch_size=101), 100)
