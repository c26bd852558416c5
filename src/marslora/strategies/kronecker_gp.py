"""Freeze-thaw search in ranks and learning rates by BoTorch's Gaussian process of learning curves (`bench` extra).

A few settings begin at random. Then, round after round, `LatentKroneckerGP` (arXiv 2410.09239) is fitted to all curves
and predicts every candidate's loss at full length; those that may be the best begin, or go on for longer, until the
budget is spent. The model knows nothing before a study begins, unlike the law of `mars`, whose rival this is.

Like `mars`, `propose` re-enacts the whole search at each call, so that it depends on the problem and the runs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.runs import Run
from marslora.core.schedule import few_evaluation_steps
from marslora.core.seeds import derive
from marslora.core.setting import Setting
from marslora.core.spec import VALIDATION_WORK, MemberSpec
from marslora.strategies._design import cover_best
from marslora.strategies._kronecker_decision import decide_kronecker
from marslora.strategies._kronecker_model import Curves, Prediction, import_botorch, predict_full_losses
from marslora.strategies._problem import Problem, Validations
from marslora.strategies._runs import cut_runs, select_unfinished
from marslora.strategies._strategy import AbstractStrategy, Count, Positive, Share

MIN_FIRST = 3
"""Settings of the first round even if the budget does not pay for them: fewer cannot be compared."""
WORDS = {"acquisition": ("thompson", "improvement"), "curves": ("training", "validation")}
"""What the options in words may be."""


class KroneckerGpStrategy(AbstractStrategy):
    """Begins settings at random, predicts all curves, and begins or continues those that may be the best."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """How much is measured, and how the next runs are picked."""

        cost: Positive = 0.5
        """Full runs of calibration if the problem has no budget."""
        max_first: Count = 24
        """Most settings of the first round."""
        first_length: Share = 1 / 20
        """Length of the first runs as a share of a full run, or longer if the budget pays for `max_first` of that."""
        first_share: Share = 0.4
        """Share of the budget for the first round."""
        growth: float = 3.0
        """Factor between the lengths to which a setting is continued."""
        batch: Count = 4
        """Settings of a later round."""
        max_rounds: Count = 20
        """Most rounds."""
        acquisition: str = "thompson"
        """How a later round is picked: ``thompson``, the best of a draw each; ``improvement``, those that together
        lower the expected loss of the best most."""
        curves: str = "training"
        """``training``: training losses are read beside few validations; ``validation``: validation losses alone, so
        all regular points are validated, which short runs pay dearly for."""

        def __post_init__(self) -> None:
            for name, words in WORDS.items():
                if isinstance(found := getattr(self, name), str) and found not in words:
                    raise ConfigError(f"`{name}` must be one of {list(words)}, found {found!r}. Use e.g. {words[0]!r}.")
            if not self.growth > 1:
                raise ConfigError(f"`growth` must be above 1, found {self.growth}. Use e.g. 3.0.")

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The unfinished members of the first unfinished round."""
        if len(problem.candidates()) == 1:
            return ()
        import_botorch()  # if it is missing, that is said before anything is trained
        budget = (self.config.cost if problem.budget is None else problem.budget) * problem.full_work
        wanted, seen = self._plan_first(problem, budget * self.config.first_share), list[Run]()
        for number in range(1, self.config.max_rounds + 1):
            if todo := select_unfinished(wanted, runs):
                return todo
            ids = {member.id for member in wanted}
            seen = [run for run in seen if run.member.id not in ids] + cut_runs(wanted, runs)
            wanted = self._plan_next(problem, seen, budget - problem.work(seen), number)
            if not wanted:
                break
        return ()

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The least predicted loss at full length."""
        return decide_kronecker("kronecker_gp", problem, runs, self._predict(problem, runs))

    def _plan_first(self, problem: Problem, budget: float) -> list[MemberSpec]:
        """Round 1: short runs of a random draw, as many as the budget pays for and at least `MIN_FIRST`."""
        lengths, candidates = problem.list_lengths(), problem.candidates()
        shortest = _find_nearest(lengths, self.config.first_length * problem.full_examples)
        most = min(self.config.max_first, len(candidates))
        num = int(np.clip(budget / self._count_work(problem, 0, shortest), min(MIN_FIRST, most), most))
        longer = [each for each in lengths if num * self._count_work(problem, 0, each) <= budget]
        order = np.random.default_rng(derive(problem.seed, "kronecker first")).permutation(len(candidates))
        until = max([shortest, *longer])
        return [self._make_member(problem, candidates[c], until) for c in order[:num].tolist()]

    def _plan_next(self, problem: Problem, seen: Sequence[Run], left: float, number: int) -> list[MemberSpec]:
        """A later round: each picked setting as far as its next length, or as what is left pays for; maybe empty."""
        prediction = self._predict(problem, seen)
        if prediction is None:
            return []
        candidates, lengths, wanted = problem.candidates(), problem.list_lengths(), list[MemberSpec]()
        reached = {run.member.setting: run.last_examples for run in seen}
        broken = {run.member.setting for run in seen if run.status != "complete"}
        shortest = min(filter(None, reached.values()), default=lengths[0])
        for setting in [candidates[c] for c in self._pick(problem, prediction, number)]:
            begun = reached.get(setting, 0)
            later = [each for each in lengths if each > begun and (begun or each >= shortest)]
            if setting in broken or not later:
                continue
            goal = _find_nearest(later, max(begun * self.config.growth, shortest))
            if paid := [t for t in later if t <= goal and self._count_work(problem, begun, t) <= left]:
                wanted.append(self._make_member(problem, setting, paid[-1]))
                left -= self._count_work(problem, begun, paid[-1])
        return wanted

    def _pick(self, problem: Problem, prediction: Prediction, number: int) -> list[int]:
        """The candidates of a later round."""
        if self.config.acquisition == "improvement":
            return cover_best(np.exp(prediction.draws_SC), self.config.batch)
        rng = np.random.default_rng(derive(problem.seed, "kronecker thompson", number))
        best_S = rng.permutation(prediction.draws_SC.argmin(axis=1))
        return list(dict.fromkeys(best_S.tolist()))[: self.config.batch]

    def _predict(self, problem: Problem, runs: Sequence[Run]) -> Prediction | None:
        return predict_full_losses(problem, runs, cast(Curves, self.config.curves))

    def _make_member(self, problem: Problem, setting: Setting, until: int) -> MemberSpec:
        validations: Validations = "regular" if self.config.curves == "validation" else "few"
        return problem.member(setting, problem.num_train, until, "candidate run", validations=validations)

    def _count_work(self, problem: Problem, start: int, until: int) -> float:
        """What it costs to train a run from one length to another, with its validations, in training examples."""
        size = problem.batch_size
        steps: Sequence[int] = [length // size for length in problem.points or problem.list_lengths()]
        if self.config.curves == "training":
            steps = few_evaluation_steps(steps, size, problem.num_validation)
        num = sum(start < step * size <= until for step in steps)
        return until - start + VALIDATION_WORK * problem.num_validation * num


def _find_nearest(lengths: Sequence[int], wanted: float) -> int:
    return min(lengths, key=lambda length: abs(np.log(length / wanted)))
