"""Decide what to measure next, and which ranks to choose.

- A `Problem` is what is searched: a space of allocations, the number of training rows, the length of a full run (the
  unit of cost), a budget.
- A *member* (`marslora.core.spec.MemberSpec`) is a run that a strategy asks for; `Problem.member` makes one. A *run*
  (`marslora.core.runs.Run`) is what was measured of it. Asked for again with more examples, it is continued.
- A *candidate* is an allocation that may be chosen. A *candidate run* trains one on all rows; a *part run* trains one
  part alone.
- A *strategy* proposes members, round after round, until it knows enough, and then decides. Both are pure functions of
  the problem and all runs so far, so a strategy keeps no state, and resuming is running again.
- *Predictions* are draws of every candidate's loss; the *choice* made from them becomes a
  `marslora.core.decision.DecisionRecord`.

Each file without a leading underscore is a strategy that ``--strategy`` names, e.g. ``mars.py``. One of your own is
named ``package.module:Class``. This one trains every candidate for a share of a full run::

    from dataclasses import dataclass

    from marslora.strategies import AbstractStrategy, decide_by_loss, select_unfinished

    class ShortGrid(AbstractStrategy):
        @dataclass(frozen=True, kw_only=True)
        class Config(AbstractStrategy.Config):
            share: float = 0.25
            \"\"\"Length of every run as a share of a full run.\"\"\"

        config: Config

        def propose(self, problem, runs):
            rows, until = problem.num_train, problem.examples(self.config.share)
            wanted = [problem.member(each, rows, until, "short grid") for each in problem.candidates()]
            return select_unfinished(wanted, runs)

        def decide(self, problem, runs):
            assumptions = ("allocations that lead early also lead late",)
            return decide_by_loss("short_grid", problem, runs, assumptions, next_steps=())

To try it without training, replay it on a table of finished runs: see `marslora.replay`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
