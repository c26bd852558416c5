"""What may be chosen, and what measuring costs."""

from marslora.core.allocation import Allocation, Space
from marslora.core.runs import Run
from marslora.core.setting import Setting
from marslora.core.spec import VALIDATION_WORK
from marslora.strategies import Problem

RATES = (1e-3, 2e-3)


def problem(ladders=None, **more):
    return Problem(
        space=Space.of(ladders or {"eye": (0, 8), "tongue": (4,)}),
        num_train=800,
        full_examples=1600,
        batch_size=16,
        count_parameters=lambda allocation: sum(rank for _, rank in allocation.ranks),
        **more,
    )


def test_without_rates_candidates_are_the_allocations():
    posed = problem()
    assert [each.allocation for each in posed.candidates()] == list(posed.allocations())
    assert all(each.learning_rate is None for each in posed.candidates()) and posed.middle_rate is None


def test_every_allocation_is_a_candidate_at_every_rate():
    found = problem(learning_rates=RATES).candidates()
    assert [(each.allocation["eye"], each.learning_rate) for each in found] == [
        (0, 1e-3),
        (0, 2e-3),
        (8, 1e-3),
        (8, 2e-3),
    ]
    assert not any(each.part_learning_rates for each in found)


def test_a_factor_of_1_leaves_a_part_without_a_rate_of_its_own():
    posed = problem({"eye": (8,), "tongue": (4,)}, learning_rates=RATES, part_rate_factors=(("eye", (0.25, 1.0)),))
    own = [dict(each.part_learning_rates) for each in posed.candidates()]
    assert own == [{"eye": 0.25 * 1e-3}, {}, {"eye": 0.25 * 2e-3}, {}]


def test_a_part_that_is_not_trained_makes_no_further_candidates():
    posed = problem(learning_rates=RATES, part_rate_factors=(("eye", (0.25, 1.0)), ("tongue", (1.0, 2.0))))
    found = posed.candidates()
    untrained = [each for each in found if not each.allocation["eye"]]
    assert len(found) == len(set(found)) == 2 * 2 + 2 * 2 * 2
    assert len(untrained) == 2 * 2
    assert not any("eye" in dict(each.part_learning_rates) for each in untrained)


def test_limits_hold_at_every_rate():
    posed = problem(learning_rates=RATES, max_parameters=4)
    assert {each.allocation["eye"] for each in posed.candidates()} == {0} and len(posed.candidates()) == 2


def test_ranks_alone_are_compared_at_the_middle_rate():
    posed = problem(learning_rates=(1e-3, 2e-3, 4e-3), part_rate_factors=(("eye", (0.5,)),))
    assert posed.middle_rate == 2e-3
    assert all(posed.at_middle_rate(each).learning_rate == 2e-3 for each in posed.allocations())
    assert posed.searches_rates and not problem().searches_rates


def run(posed, until, looks, **more):
    setting = Setting(allocation=Allocation.of(eye=8, tongue=4))
    examples = (0, *looks)
    return Run(
        member=posed.member(setting, 800, until, "a test"),
        status="complete",
        examples=examples,
        validation_loss=tuple(1.0 for _ in examples),
        **more,
    )


def test_a_run_costs_its_training_and_its_validations():
    posed = problem(num_validation=64, full_validations=10)
    assert posed.full_work == 1600 + VALIDATION_WORK * 64 * 10
    seen = [run(posed, 320, (160, 320)), run(posed, 480, (160,), train_examples=(160, 480), train_loss=(1.0, 1.0))]
    assert posed.work(seen) == 320 + 480 + VALIDATION_WORK * 64 * 3
    assert posed.spent(seen) == posed.work(seen) / posed.full_work
    full = run(posed, 1600, range(160, 1601, 160))
    assert posed.spent([full]) == 1


def test_without_validation_rows_a_full_run_is_its_examples():
    assert problem().full_work == 1600
    assert problem().spent([run(problem(), 400, (200, 400))]) == 0.25


def test_members_of_different_rates_have_different_names():
    posed = problem(learning_rates=RATES, part_rate_factors=(("eye", (0.5, 1.0)),))
    members = [posed.member(each, 800, 16, "a test") for each in posed.candidates()]
    assert len({member.id for member in members}) == len(posed.candidates())
    assert [member.setting for member in members] == list(posed.candidates())
    plain = posed.member(problem().candidates()[-1], 800, 16, "a test")
    assert plain.id == "eye=8+tongue=4.d800.s0"
    assert {member.validations for member in members} == {"end"}
    few = posed.member(posed.candidates()[0], 800, 16, "a test", validations="few")
    assert few.validations == "few"
    assert posed.member(posed.candidates()[-1], 800, 16, "").id == "eye=8+tongue=4.lr0.002.d800.s0"
