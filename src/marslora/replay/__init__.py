"""Replay searches on tables of finished runs: what a strategy would have chosen, and what it would have paid.

- A `RunTable` holds a `TableHeader` and every `FinishedRun`: all allocations of a space, several seeds, whole curves.
- A `Simulation` stands in for training: it answers a strategy from one seed, and charges training and validation.
- The `GroundTruth` is each candidate's lowest loss, mean over the seeds; *regret* is the chosen one's above the best.
- A `Searcher` is a strategy with its options and budget; searchers of one *family* differ only in what they spend.
- An *instance* is a table, a seed and a limit on trainable parameters. `run_benchmark` replays every searcher on every
  instance; `rank_families` compares families at equal cost, `measure_reliability` checks stated probabilities.

How well halving does on a table that was made up::

    from marslora.core.allocation import Space
    from marslora.replay import FinishedRun, RunTable, Simulation, TableHeader, parse_searchers, replay_strategy

    space = Space.of({"vision": (2, 8, 32), "language": (2, 8, 32)})
    examples = (0, 100, 200, 400, 800, 1600)

    def make_run(allocation):
        speed = allocation["vision"] ** 0.3 * allocation["language"] ** 0.1
        losses = tuple(float(1 + 2 / (1 + speed * t / 400)) for t in examples)
        return FinishedRun(
            allocation=allocation, data_examples=800, learning_rate=1e-3, seed=0, status="complete",
            num_trainable=sum(rank for _, rank in allocation.ranks), examples=examples, validation_loss=losses,
        )

    header = TableHeader(
        name="made up", description="", space=space, num_train=800, full_examples=1600, batch_size=16,
        learning_rate=1e-3, seeds=(0,), made_by="an example",
    )
    table = RunTable(header, tuple(map(make_run, space.allocations())))
    (searcher,) = parse_searchers("successive_halving:eta=3,first_rung=0.125")
    outcome = replay_strategy(searcher.make_strategy(), Simulation(table, seed=0))
    print(outcome.decision.chosen, outcome.regret, round(outcome.cost, 2))  # vision=32 language=32 0.0 2.32
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
