"""Threads and processes that share an Optuna study: none trains another's run, none is left behind by one that died."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from marslora.core.errors import ConfigError
from marslora.optuna import MarsSampler, _lease, _sampler
from marslora.optuna._runs import MEMBER
from tests.unit.test_optuna import Trainer, sampler, study

HALVING = {"strategy": "successive_halving", "options": {"first_rung": 0.05}}


def test_two_threads_never_get_the_same_run(monkeypatch):
    pick = MarsSampler._pick_member

    def pick_slowly(self, asked):
        picked = pick(self, asked)
        time.sleep(0.05)
        return picked

    monkeypatch.setattr(MarsSampler, "_pick_member", pick_slowly)
    driver = sampler(budget=0.4)
    found = study(driver)
    with ThreadPoolExecutor(2) as threads:
        runs = list(threads.map(lambda _: driver.suggest(found.ask()), range(4)))
    assert len({tuple(run.ranks.values()) for run in runs}) == 4


def in_order(trainer):
    """What was trained, without the numbers of trials, which depend on who was first."""
    return sorted((run.examples, *run.ranks.values(), run.is_final) for run in trainer.seen)


@pytest.mark.parametrize("num_jobs", [2, 3])
def test_jobs_share_every_round_and_end_together(num_jobs, monkeypatch):
    monkeypatch.setattr(_sampler, "POLL_SECONDS", 0.01)
    alone = Trainer(sampler(**HALVING))
    study(alone.sampler).optimize(alone.objective)
    trainer = Trainer(driver := sampler(**HALVING))
    found = study(driver)
    found.optimize(trainer.objective, n_jobs=num_jobs)
    assert in_order(trainer) == in_order(alone)
    assert driver.is_done(found) and trainer.seen[-1].is_final
    surplus = [trial for trial in found.get_trials() if trial.state is not TrialState.COMPLETE]
    assert all(trial.state is TrialState.PRUNED and not trial.params for trial in surplus)
    assert len(surplus) < 2 * num_jobs
    found.optimize(trainer.objective, n_jobs=num_jobs)  # is done: ends at once
    assert in_order(trainer) == in_order(alone)


def test_a_final_run_that_fails_twice_ends_the_loop():
    driver = sampler(**HALVING)
    trainer, found = Trainer(driver), study(driver)

    def objective(trial):
        loss = trainer.objective(trial)
        if trainer.seen[-1].is_final:
            raise OSError("no space left")
        return loss

    found.optimize(objective, catch=OSError)
    assert [run.is_final for run in trainer.seen[-3:]] == [False, True, True]
    assert not driver.is_done(found)


def open_study(url, driver):
    is_journal = url.endswith("journal")
    storage = JournalStorage(JournalFileBackend(url)) if is_journal else RDBStorage(f"sqlite:///{url}")
    return study(driver, storage=storage, study_name="a", load_if_exists=True)


def in_child(work):
    """The number of a process that does ``work``."""
    if child := os.fork():
        return child
    try:
        work()
    finally:
        os._exit(0)


@pytest.mark.parametrize("name", [pytest.param("study.db", marks=pytest.mark.slow), "journal"])
def test_a_trial_whose_process_was_killed_is_trained_again(tmp_path, name):
    url = str(tmp_path / name)
    alone = Trainer(sampler(**HALVING))
    study(alone.sampler).optimize(alone.objective)

    def train_until_killed():
        trainer = Trainer(driver := sampler(**HALVING))

        def objective(trial):
            if trial.number == 3:
                driver.suggest(trial)
                trial.report(0.5, 16)  # of a run that nobody ends
                os.kill(os.getpid(), signal.SIGKILL)
            return trainer.objective(trial)

        open_study(url, driver).optimize(objective)

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(train_until_killed), 0)[1]) == -signal.SIGKILL
    driver = sampler(**HALVING)
    found, trainer = open_study(url, driver), Trainer(driver)
    assert [trial.state for trial in found.get_trials()][3] is TrialState.RUNNING
    trainer.checkpoints.update(dict.fromkeys(range(3), 160))
    found.optimize(trainer.objective)
    assert in_order(trainer) == sorted(in_order(alone))[3:]
    assert driver.decide(found).chosen == alone.sampler.decide(open_study(url, driver)).chosen
    assert [trial.state for trial in found.get_trials()][3] is TrialState.FAIL


def test_a_silent_trial_of_another_machine_is_given_up_after_its_lease(monkeypatch):
    monkeypatch.setattr(_lease, "LEASE_SECONDS", 0.2)
    driver = sampler(**HALVING)
    found = study(driver)
    held = [found.ask() for _ in range(16)]
    of_another = held[5]
    process = {**found.get_trials()[5].user_attrs[_lease.PROCESS], "host": "elsewhere"}
    found._storage.set_trial_user_attr(of_another._trial_id, _lease.PROCESS, process)
    for beats in range(4):  # alive
        found._storage.set_trial_user_attr(of_another._trial_id, _lease.BEATS, beats)
        with pytest.raises(ConfigError, match=r"is in training, in the trials \[0, 1, 2"):
            found.ask()
        time.sleep(0.1)
    with pytest.raises(ConfigError):
        found.ask()
    time.sleep(0.25)
    again = found.ask()
    assert again.user_attrs[MEMBER] == of_another.user_attrs[MEMBER]
    assert found.get_trials()[5].state is TrialState.FAIL


def test_a_trial_in_training_shows_that_it_is_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(_lease, "BEAT_SECONDS", 0.02)
    found = open_study(str(tmp_path / "journal"), sampler(**HALVING))
    trial = found.ask()
    deadline = time.monotonic() + 5
    while not found.get_trials()[0].user_attrs.get(_lease.BEATS) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found.get_trials()[0].user_attrs[_lease.BEATS] >= 1
    found.tell(trial, 1.0)


@pytest.mark.slow
def test_processes_that_share_a_storage_train_no_run_twice(tmp_path):
    url = str(tmp_path / "study.db")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    alone = Trainer(sampler(**HALVING))
    study(alone.sampler).optimize(alone.objective)
    open_study(url, sampler(**HALVING))

    def work():
        driver = sampler(**HALVING)

        def objective(trial):
            run = driver.suggest(trial)
            trial.set_user_attr("was", [run.examples, *run.ranks.values(), run.is_final])
            time.sleep(0.05)
            return 1.0 / (1 + sum(run.ranks.values()))

        open_study(url, driver).optimize(objective)

    for child in [in_child(work) for _ in range(3)]:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    trained = [
        tuple(trial.user_attrs["was"])
        for trial in open_study(url, sampler(**HALVING)).get_trials()
        if trial.state is TrialState.COMPLETE
    ]
    assert len(trained) == len(set(trained)) == len(alone.seen)
