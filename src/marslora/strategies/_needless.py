"""Ranks that cost parameters and gain nothing: towers that need not be trained, and every rank where all are alike."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.core.arrays import Array
from marslora.core.decision import Effect
from marslora.strategies._knobs import ALIKE_SHARE, LANGUAGE, SURE, are_alike, name_rank, name_training
from marslora.strategies._problem import Problem


def drop_needless_ranks(problem: Problem, chosen: int, effects: Sequence[Effect], loss_SC: Array, gain: float) -> int:
    """The chosen setting without needless towers, and with smaller ranks if nothing that was searched matters.

    One part after the other gets the smallest rank with which all that was dropped so far surely does not matter.
    Where anything matters, ranks above 0 stay: the law is too sure that those of one part do not (dev/LOG.md).
    """
    needless = {effect.knob for effect in effects if effect.verdict == "does not matter"}
    alike = are_alike(effects)
    kept = chosen
    for part in problem.space.searched:
        may_leave = part != LANGUAGE and name_training(part) in needless
        for rank in problem.space.ladder(part):
            if rank >= problem.candidates()[kept].allocation[part]:
                break
            if not (may_leave if rank == 0 else alike and name_rank(part) in needless):
                continue
            smaller = _replace_rank(problem, kept, part, rank)
            if (
                smaller is not None
                and (loss_SC[:, smaller] - loss_SC[:, chosen] > ALIKE_SHARE * gain).mean() <= 1 - SURE
            ):
                kept = smaller
                break
    return kept


def _replace_rank(problem: Problem, c: int, part: str, rank: int) -> int | None:
    """The candidate that differs in the rank of one part; None if there is none."""
    setting = problem.candidates()[c]
    rates = tuple(own for own in setting.part_learning_rates if own[0] != part or rank)
    wanted = setting.model_copy(
        update={"allocation": setting.allocation.replace(**{part: rank}), "part_learning_rates": rates}
    )
    return problem.candidates().index(wanted) if wanted in problem.candidates() else None
