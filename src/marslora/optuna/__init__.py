"""Optuna drives your training, marslora's strategies decide: a sampler and a pruner for `optuna.create_study`.

    sampler = MarsSampler({"vision": (4, 16, 64), "language": (4, 16, 64)}, num_train=9000, full_examples=18000)
    study = optuna.create_study(sampler=sampler, pruner=MarsPruner())
    study.optimize(objective)  # ends by itself; the last trial is the final run
    print(sampler.decide(study).summary)

The objective asks `MarsSampler.suggest` what to train, reports validation losses with the examples seen as step, and
stops when the run has seen as many as it should::

    def objective(trial):
        run = sampler.suggest(trial)
        model = restore(run.resume) if run.resume is not None else fresh(run.ranks, run.seed)
        for examples, loss in train(model, until=run.examples):  # with run.learning_rate, if that is searched too
            trial.report(loss, examples)
        save(model, trial.number)
        return loss

An objective that does not use `run.examples` may ask ``trial.should_prune()`` instead: `MarsPruner` prunes a trial
once the strategy has seen enough of it. Optuna cannot continue a trial that has ended, and continuing runs is how these
searches save most. So a run is continued by a further trial with the same parameters, whose `Suggestion.resume` is the
number of the trial to continue; an objective that starts from scratch instead pays for the beginning twice. The same
works with ``study.ask()`` and ``study.tell()``: `MarsSampler.is_done` then tells when to stop, and the runs of a round
can be trained side by side.

Threads (``study.optimize(objective, n_jobs=2)``) and processes that share a storage train the runs of a round side by
side, and wait for the others at its end; those that nothing is left for end with a pruned trial. A trial whose process
is gone is given up and trained again, at once on one machine, after `LEASE_SECONDS` on another. A run whose trial
failed is asked for once more.

The opposite, Optuna's samplers driving marslora's packed engine, is the strategy `optuna_sampler`.
"""

from marslora.optuna._lease import LEASE_SECONDS
from marslora.optuna._pruner import MarsPruner
from marslora.optuna._runs import read_runs
from marslora.optuna._sampler import MarsSampler
from marslora.optuna._suggestion import Suggestion

__all__ = ["LEASE_SECONDS", "MarsPruner", "MarsSampler", "Suggestion", "read_runs"]
