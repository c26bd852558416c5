"""Strategies drive Optuna's studies: with `optimize` and with ask and tell."""

import math

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from marslora.core.allocation import Allocation
from marslora.core.errors import ConfigError
from marslora.optuna import MarsPruner, MarsSampler, read_runs
from marslora.testing.toy_training import CLEAR

FULL, RANKS = 3200, {"eye": (2, 4, 8, 16), "tongue": (2, 4, 8, 16)}


class Trainer:
    """Training that is known in advance, with checkpoints by the number of a trial."""

    def __init__(self, sampler):
        self.sampler, self.seen, self.trained, self.checkpoints = sampler, [], 0, {}

    def losses(self, run, until):
        allocation = Allocation.of(run.ranks)
        done = self.checkpoints[run.resume] if run.resume is not None else 0
        points = sorted({0, until, *(16 * 2**n for n in range(8))})
        for examples in (t for t in points if done < t <= until or t == done == 0):
            self.trained += examples - done
            done = examples
            yield done, CLEAR.loss(allocation, examples, run.rows)

    def objective(self, trial):
        run = self.sampler.suggest(trial)
        self.seen.append(run)
        for examples, loss in self.losses(run, run.examples):
            trial.report(loss, examples)
        self.checkpoints[trial.number] = examples
        return loss

    def pruned(self, trial):
        """An objective that trains to the end unless it is stopped."""
        run = self.sampler.suggest(trial)
        self.seen.append(run)
        for examples, loss in self.losses(run, FULL):
            trial.report(loss, examples)
            self.checkpoints[trial.number] = examples
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss


def sampler(**more):
    return MarsSampler(RANKS, **{"num_train": 3200, "full_examples": FULL, **more})


def study(driver, **more):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=driver, pruner=MarsPruner(), **more)


def test_optimize_ends_with_the_final_run_of_the_choice():
    driver = sampler(budget=0.4)
    trainer, found = Trainer(driver), study(driver)
    found.optimize(trainer.objective)
    decision = driver.decide(found)
    last = trainer.seen[-1]
    assert [run.is_final for run in trainer.seen].index(True) == len(trainer.seen) - 1
    assert last.ranks == decision.chosen.as_dict() == {"eye": 16, "tongue": 16}
    assert last.examples == FULL and last.resume is not None
    assert found.best_trial.number == len(trainer.seen) - 1
    assert driver.is_done(found)
    spent = decision.calibration_full_runs
    begun = next(run for run in read_runs(found) if run.member.id == decision.continue_run).last_examples
    assert spent <= 0.41 and trainer.trained == pytest.approx(FULL * (spent + 1) - begun)
    with pytest.raises(ConfigError, match="The search has ended"):
        found.ask()


def test_a_run_that_goes_on_is_a_trial_that_names_the_one_before():
    driver = sampler(strategy="successive_halving", options={"first_rung": 0.05})
    trainer, found = Trainer(driver), study(driver)
    found.optimize(trainer.objective)
    going_on = [(n, run) for n, run in enumerate(trainer.seen) if run.resume is not None]
    assert len(going_on) == 4 + 1  # a rung of 4, the final run
    for _, run in going_on:
        before = trainer.seen[run.resume]
        assert before.ranks == run.ranks and before.examples < run.examples and before.seed == run.seed
    assert len(read_runs(found)) == 16


def test_pruning_stops_where_the_strategy_has_seen_enough():
    one, two = sampler(budget=0.4), sampler(budget=0.4)
    plain, pruned = Trainer(one), Trainer(two)
    first, second = study(one), study(two)
    first.optimize(plain.objective)
    second.optimize(pruned.pruned)
    states = [trial.state for trial in second.get_trials()]
    assert set(states[:-1]) == {optuna.trial.TrialState.PRUNED} and states[-1] is optuna.trial.TrialState.COMPLETE
    assert one.decide(first).chosen == two.decide(second).chosen


def test_ask_and_tell_train_a_round_side_by_side():
    driver = sampler(strategy="successive_halving", options={"first_rung": 0.05})
    trainer, found = Trainer(driver), study(driver)
    round_ = [found.ask() for _ in range(16)]
    assert len({trial.number for trial in round_}) == 16
    with pytest.raises(ConfigError, match="Every run of this round is in training"):
        found.ask()
    for trial in round_:
        found.tell(trial, trainer.objective(trial))
    while not driver.is_done(found):
        trial = found.ask()
        found.tell(trial, trainer.objective(trial))
    assert trainer.seen[-1].is_final and trainer.seen[-1].ranks == {"eye": 16, "tongue": 16}


def test_a_study_in_a_database_goes_on(tmp_path):
    journal = JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
    driver = sampler(budget=0.3)
    trainer = Trainer(driver)
    study(driver, storage=journal, study_name="a").optimize(trainer.objective, n_trials=5)
    trainer.sampler = again = sampler(budget=0.3)
    found = study(again, storage=journal, study_name="a", load_if_exists=True)
    found.optimize(trainer.objective)
    whole = Trainer(other := sampler(budget=0.3))
    study(other).optimize(whole.objective)
    assert trainer.seen == whole.seen


@pytest.mark.parametrize("failing", [{15}, {15, 16}])
def test_a_run_that_failed_is_asked_for_once_more(failing):
    driver = sampler(strategy="grid", options={})
    trainer, found = Trainer(driver), study(driver)

    def objective(trial):
        loss = trainer.objective(trial)
        return math.nan if trial.number in failing else loss

    found.optimize(objective)
    largest = {"eye": 16, "tongue": 16}
    assert trainer.seen[15].ranks == trainer.seen[16].ranks == largest and trainer.seen[16].resume is None
    assert (driver.decide(found).chosen.as_dict() == largest) == (len(failing) == 1)
    assert len(trainer.seen) == 17 and not any(run.is_final for run in trainer.seen)  # the best was trained to its end


def test_other_parameters_and_given_ones_are_left_to_optuna():
    driver = sampler(strategy="grid", options={})
    found = study(driver)
    trial = found.ask()
    driver.suggest(trial)
    assert 0 <= trial.suggest_float("dropout", 0, 0.1) <= 0.1
    found.enqueue_trial({"eye": 4, "tongue": 2})
    with pytest.raises(ConfigError, match="Trial 1 has parameters that were given to it"):
        driver.suggest(found.ask())
    with pytest.raises(ConfigError, match="must minimise"):
        study(sampler(), direction="maximize").ask()


def test_parts_and_parameters_are_counted():
    driver = sampler(max_parameters=10, budget=0.2)
    trainer, found = Trainer(driver), study(driver)
    found.optimize(trainer.objective)
    assert all(sum(run.ranks.values()) <= 10 for run in trainer.seen)
    dear = sampler(count_parameters=lambda ranks: 100 * ranks["eye"] + ranks["tongue"], max_parameters=450)
    assert {a["eye"] for a in dear._problem.allocations()} == {2, 4}


def test_the_learning_rate_is_a_parameter_and_part_of_the_suggestion():
    rates = (5e-4, 1e-3, 2e-3)
    more = {"learning_rates": rates, "part_rate_factors": {"eye": (1 / 3, 1, 3)}, "strategy": "grid", "options": {}}
    driver = MarsSampler({"eye": (0, 4), "tongue": (4,)}, num_train=320, full_examples=320, **more)
    found, seen = study(driver), []

    def objective(trial):
        run = driver.suggest(trial)
        seen.append((run, dict(trial.params)))
        return 1 + abs(math.log(run.learning_rate / 1e-3)) + abs(math.log(run.part_learning_rates.get("eye", 1) / 3e-3))

    found.optimize(objective)
    assert len(seen) == 3 * 3 + 3  # a part with rank 0 has no rate
    for run, parameters in seen:
        assert parameters["learning_rate"] == run.learning_rate
        factor = run.part_learning_rates.get("eye", run.learning_rate) / run.learning_rate
        assert parameters["learning_rate_factor.eye"] == pytest.approx(factor)
    decision = driver.decide(found)
    assert (decision.learning_rate, decision.part_learning_rates["eye"]) == (1e-3, pytest.approx(3e-3))


def test_a_search_without_learning_rates_suggests_none():
    driver = sampler(strategy="uniform", options={"rank": 4})
    run = driver.suggest(study(driver).ask())
    assert (run.learning_rate, run.part_learning_rates) == (None, {})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"learning_rates": (1e-3, 5e-4)}, r"`learning_rates` must be above 0 and increase"),
        ({"learning_rates": (0, 5e-4)}, r"`learning_rates` must be above 0 and increase"),
        ({"part_rate_factors": {"eye": (1, 3)}}, r"so they need `learning_rates`, found factors of \['eye'\]"),
    ],
)
def test_wrong_learning_rates_are_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        sampler(**more)
