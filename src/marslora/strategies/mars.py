"""MARS over ranks and learning rates: begin a few settings, predict all, continue those that may be the best.

A strategy is a pure function of the problem and the runs, with no state of its own: `propose` re-enacts the whole
search at each call. It plans the first round; if one of its members is unfinished, that is the proposal. Otherwise it
cuts the runs to what was known after that round, plans the next round from these, and so on. So resuming after a crash
is running again, a failed run changes nothing but what follows from it, and the same runs always lead to the same
search. Rounds:

1. *First settings*: runs of those that together are likeliest to hold one as good as the best, by what the law of
   settings (`marslora.laws.setting_law`) knows before anything is measured. The reference setting, which is chosen
   unless another one is surely better, is always among them; so is the usual one if they are more than two.
2. *Leaders*, several rounds: the choice so far, and others that may be the best by all that was measured, also such as
   were not begun yet.
3. *Final of rates*, if the budget pays for it: the reference at the middle learning rate and at those next to it, each
   for half of a full run or more. The rate that leads then is taken in the place of the middle one.
4. *Choice*: what was chosen goes on alone, so that its final loss is foretold from a longer run. The final run
   continues it, so this costs nothing as long as the choice stays the same.
5. *Sweep*, on request: the chosen setting and its neighbours.

Runs are compared by their training losses, which are paired, since all see the same rows in the same order, and by few
validations. The final run continues the chosen setting's run. Where the learning rate is given, only ranks are
searched, as `marslora.strategies.ranks_only` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from marslora.core.arrays import Array
from marslora.core.decision import DecisionRecord
from marslora.core.runs import Run
from marslora.core.schedule import few_evaluation_steps
from marslora.core.setting import Setting
from marslora.core.spec import VALIDATION_WORK, MemberSpec
from marslora.strategies._design import cover_best
from marslora.strategies._problem import Problem, Validations
from marslora.strategies._reference import find_final_length, find_reference, list_rivals
from marslora.strategies._runs import cut_runs, select_unfinished
from marslora.strategies._setting_decision import choose_setting, decide_setting
from marslora.strategies._setting_predictions import predict_best_losses
from marslora.strategies._strategy import AbstractStrategy
from marslora.strategies._uniform import find_nearest_uniform
from marslora.strategies.ranks_only import RanksOnlyStrategy

DEFAULT_COST = 0.5
"""Full runs of calibration if neither a budget nor the option ``cost`` is given. Chosen on the tables."""
LAST_LENGTH = 0.7
"""Share of a full run up to which the choice goes on in the last round: before the learning rate decays by default."""
MIN_FIRST = 2
"""Settings of the first round even if the budget does not pay for them: fewer cannot be compared."""
LATER_SHARE = 0.5
"""Share of what is left of the budget that a later round takes, so that there can be more of them."""


class MarsStrategy(AbstractStrategy):
    """A law of ranks, learning rate and time says what to measure next, what to choose, and how sure that is."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractStrategy.Config):
        """How much is measured. At a given learning rate only ``cost``, ``confidence`` and ``sweep`` apply."""

        cost: Annotated[float, Field(gt=0)] | None = None
        """Full runs of calibration if the problem has no budget. Default: 0.5, or 0.25 where the rate is given."""
        max_first: Annotated[int, Field(ge=2)] = 24
        """Most settings of the first round."""
        first_length: Annotated[float, Field(gt=0, le=1)] = 0.3
        """Length of the first runs as a share of a full run: shorter if the budget does not pay for two of them."""
        first_share: Annotated[float, Field(gt=0, le=1)] = 0.4
        """Share of the budget without the last round for the first; each later one takes half of what is left."""
        max_rounds: Annotated[int, Field(ge=1)] = 6
        """Most rounds before the sweep."""
        max_leaders: Annotated[int, Field(ge=2)] = 6
        """Most settings that go on in a later round."""
        last_share: Annotated[float, Field(ge=0, lt=1)] = 0.3
        """Share of the budget with which the choice goes on alone at last. Chosen on the tables."""
        min_screening: Annotated[float, Field(gt=0)] = 0.25
        """Full runs for the rounds before the final of rates, which takes place if the budget pays for it too."""
        confidence: Annotated[float, Field(gt=0, le=1)] = 0.95
        """The search ends when the chosen setting is best with this probability."""
        usual_rank: Annotated[int, Field(ge=1)] = 16
        """Rank of the usual setting, which is begun at the middle learning rate wherever more than two settings are."""
        sweep: Annotated[float, Field(ge=0, le=1)] = 0.0
        """Share of a full run for which the chosen setting and its neighbours (one rank up or down in one part, or one
        learning rate) are trained at last, beyond the budget; 0: no sweep."""

        constants: str = ""
        """Path of other constants of the law, as benchmarks/fit_setting_law.py writes them. Default: the package's."""

    config: Config

    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The unfinished members of the first unfinished round."""
        if len(problem.candidates()) == 1:
            return ()
        if not problem.searches_rates:
            return self._search_ranks().propose(problem, runs)
        whole = (problem.budget or self.config.cost or DEFAULT_COST) * problem.full_work
        finalists, final_length = self._list_finalists(problem, whole), find_final_length(problem)
        reserve = len(finalists) * _count_work(problem, 0, final_length)
        budget = (whole - reserve) * (1 - self.config.last_share)
        lengths = problem.list_lengths()
        if finalists:  # the final must go further than any round before it, so that all are validated at its end
            lengths = tuple(each for each in lengths if each < final_length) or lengths[:1]
        first = self._plan_first(problem, lengths, budget * self.config.first_share)
        if todo := select_unfinished(first, runs):
            return todo
        seen = cut_runs(first, runs)
        for number in range(2, self.config.max_rounds + 1):
            left = budget - problem.work(seen)
            share = 1.0 if number == self.config.max_rounds else LATER_SHARE
            settled = self._is_settled(problem, seen)
            continued = [] if settled else self._plan_leaders(problem, lengths, seen, share * left, left)
            if todo := select_unfinished(continued, runs):
                return todo
            if not continued:
                break
            seen = _replace_runs(seen, cut_runs(continued, runs))
        final = self._plan_runs(problem, finalists, final_length, "end")
        if todo := select_unfinished(final, runs):
            return todo
        seen = _replace_runs(seen, cut_runs(final, runs))
        last = self._plan_last(problem, seen, whole - problem.work(seen))
        if todo := select_unfinished(last, runs):
            return todo
        return self._propose_sweep(problem, runs, _replace_runs(seen, cut_runs(last, runs)))

    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The choice by the law of settings."""
        if not problem.searches_rates:
            return self._search_ranks().decide(problem, runs).model_copy(update={"strategy": "mars"})
        return decide_setting("mars", problem, runs, self._predict(problem, runs) if runs else None)

    def _search_ranks(self) -> RanksOnlyStrategy:
        """The search at one learning rate, whose law did better there on the tables (docs/benchmarks.md).

        Of the options, those that it has too are passed on: the cost, the confidence and the sweep.
        """
        config = self.config
        cost = {} if config.cost is None else {"cost": config.cost}
        return RanksOnlyStrategy(confidence=config.confidence, sweep=config.sweep, **cost)

    def _plan_first(self, problem: Problem, lengths: Sequence[int], budget: float) -> list[MemberSpec]:
        """Round 1: as many runs of the first length as the budget pays for, and at least `MIN_FIRST`.

        All are as long as the budget allows: longer than the first length if there are no more settings, shorter if it
        does not pay for the fewest.
        """
        wanted = _find_nearest(lengths, self.config.first_length * problem.full_examples)
        most = min(self.config.max_first, len(problem.candidates()))
        num = int(np.clip(budget / _count_work(problem, 0, wanted), min(MIN_FIRST, most), most))
        affordable = [each for each in lengths if num * _count_work(problem, 0, each) <= budget]
        usual = problem.at_middle_rate(find_nearest_uniform(problem, self.config.usual_rank))
        first = list(dict.fromkeys([find_reference(problem), problem.candidates().index(usual)]))
        first = first if num > MIN_FIRST else first[:1]
        picked = cover_best(self._predict(problem, ()), num, first)
        return self._plan_runs(problem, picked, max(affordable, default=lengths[0]))

    def _plan_leaders(
        self, problem: Problem, lengths: Sequence[int], seen: Sequence[Run], budget: float, most: float
    ) -> list[MemberSpec]:
        """A later round for a budget, or a shorter one of as many as can be had for ``most``; empty if none can be."""
        loss_SC = self._predict(problem, seen)
        p_best_C = np.bincount(loss_SC.argmin(axis=1), minlength=loss_SC.shape[1]) / len(loss_SC)
        num_likely = float(np.exp(-(p_best_C[p_best_C > 0] * np.log(p_best_C[p_best_C > 0])).sum()))
        chosen = choose_setting(problem, seen, loss_SC).chosen
        num = int(np.clip(np.ceil(num_likely / 2), 2, self.config.max_leaders))
        leaders = cover_best(loss_SC, num, [chosen])
        reached = {run.member.setting: run.last_examples for run in seen}
        for num in range(len(leaders), 0, -1):
            begun = {c: reached.get(problem.candidates()[c], 0) for c in leaders[:num]}
            cost = {each: sum(_count_work(problem, start, each) for start in begun.values()) for each in lengths}
            length = _find_affordable_length(cost, min(begun.values()), budget, most)
            if length is not None:
                return self._plan_runs(problem, [c for c in begun if begun[c] < length], length)
        return []

    def _list_finalists(self, problem: Problem, budget: float) -> list[int]:
        """The reference and its rivals; none if the budget does not pay for all of them in the final of rates."""
        finalists = [find_reference(problem), *list_rivals(problem)]
        cost = len(finalists) * _count_work(problem, 0, find_final_length(problem))
        pays = len(finalists) > 1 and cost + self.config.min_screening * problem.full_work <= budget
        return finalists if pays else []

    def _plan_last(self, problem: Problem, seen: Sequence[Run], budget: float) -> list[MemberSpec]:
        """The last round: the choice alone goes on as far as a budget pays for, which the final run then continues."""
        chosen = choose_setting(problem, seen, self._predict(problem, seen)).chosen
        setting = problem.candidates()[chosen]
        begun = max((run.last_examples for run in seen if run.member.setting == setting), default=0)
        most = LAST_LENGTH * problem.full_examples
        lengths = [each for each in problem.list_lengths() if begun < each <= most]
        affordable = [each for each in lengths if _count_work(problem, begun, each) <= budget]
        return self._plan_runs(problem, [chosen], max(affordable)) if affordable else []

    def _plan_runs(
        self, problem: Problem, candidates: Sequence[int], until: int, validations: Validations = "few"
    ) -> list[MemberSpec]:
        settings = [problem.candidates()[c] for c in candidates]
        return [problem.member(s, problem.num_train, until, "candidate run", validations=validations) for s in settings]

    def _is_settled(self, problem: Problem, seen: Sequence[Run]) -> bool:
        loss_SC = self._predict(problem, seen)
        chosen = choose_setting(problem, seen, loss_SC).chosen
        return bool((loss_SC.argmin(axis=1) == chosen).mean() >= self.config.confidence)

    def _predict(self, problem: Problem, runs: Sequence[Run]) -> Array:
        ordered = tuple(sorted(runs, key=lambda run: run.member.id))
        return predict_best_losses(problem, ordered, self.config.constants)

    def _propose_sweep(self, problem: Problem, runs: Sequence[Run], seen: Sequence[Run]) -> Sequence[MemberSpec]:
        """The setting that is chosen now and its neighbours; empty without a sweep."""
        if not self.config.sweep:
            return ()
        chosen = choose_setting(problem, seen, self._predict(problem, seen)).chosen
        until = _find_nearest(problem.list_lengths(), self.config.sweep * problem.full_examples)
        return select_unfinished(self._plan_runs(problem, list_neighbours(problem, chosen), until), runs)


def _replace_runs(runs: Sequence[Run], newer: Sequence[Run]) -> list[Run]:
    """The runs, with those that have gone on replaced by what they are now."""
    ids = {run.member.id for run in newer}
    return [*(run for run in runs if run.member.id not in ids), *newer]


def list_neighbours(problem: Problem, chosen: int) -> list[int]:
    """The candidate, and every other that differs in one rank or in the learning rate, by one step of its ladder."""
    candidates = problem.candidates()
    near = [chosen]
    near += [c for c in range(len(candidates)) if _count_steps(problem, candidates[chosen], candidates[c]) == 1]
    return near


def _count_steps(problem: Problem, one: Setting, other: Setting) -> int:
    """Steps on the ladders of ranks and rates between two settings; parts' own rates must agree."""
    ranks = [(problem.space.ladder(part), one.allocation[part], other.allocation[part]) for part in problem.space.parts]
    steps = sum(abs(ladder.index(a) - ladder.index(b)) for ladder, a, b in ranks)
    if problem.learning_rates:
        rates = problem.learning_rates
        steps += abs(rates.index(one.learning_rate or 0.0) - rates.index(other.learning_rate or 0.0))
    return steps + 2 * (len(one.part_learning_rates) != len(other.part_learning_rates))


def _find_affordable_length(cost: Mapping[int, float], begun: int, budget: float, most: float) -> int | None:
    """The greatest length beyond ``begun`` whose cost is within a budget, or the least that ``most`` pays for."""
    longer = [length for length in cost if length > begun and cost[length] <= most]
    within = [length for length in longer if cost[length] <= budget]
    return max(within) if within else min(longer, default=None)


def _find_nearest(lengths: Sequence[int], wanted: float) -> int:
    return min(lengths, key=lambda length: abs(np.log(length / wanted)))


def _count_work(problem: Problem, start: int, until: int) -> float:
    """What it costs to train a run from one length to another, with its few validations, in training examples."""
    if until <= start:
        return 0.0
    size = problem.batch_size
    steps = [length // size for length in problem.points or problem.list_lengths()]
    looks = few_evaluation_steps(steps, size, problem.num_validation)
    num = sum(start < step * size <= until for step in looks)
    return until - start + VALIDATION_WORK * problem.num_validation * num
