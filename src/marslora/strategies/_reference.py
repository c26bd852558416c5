"""What is taken unless another setting is surely better: the reference, at the rate that won the final of rates.

A *final of rates* trains the reference's ranks at the middle learning rate and at those next to it, each for at least
`FINAL_SHARE` of a full run.
"""

from __future__ import annotations

from collections.abc import Sequence

from marslora.core.runs import Run
from marslora.strategies._problem import Problem

FINAL_SHARE = 0.5
"""Share of a full run from which the order of learning rates tells that of full runs: before it, high ones lead.

On 32 of 33 tables and seeds the rate that led from 0.5 on was best at the end, or within 0.02 nats of it; on 23 of them
the one that led at 0.25 (`benchmarks/rate_finals.py`).
"""


def find_reference(problem: Problem) -> int:
    """The candidate with the most parameters at the middle learning rate.

    Of all rules that measure nothing it did best on the tables, whichever task was left out (docs/benchmarks.md).
    """
    candidates = problem.candidates()
    at_middle = [c for c, each in enumerate(candidates) if each == problem.at_middle_rate(each.allocation)]
    return max(at_middle, key=lambda c: problem.count_parameters(candidates[c].allocation))


def list_rivals(problem: Problem) -> list[int]:
    """The candidates that differ from the reference in the learning rate alone, by one step of its ladder."""
    reference, rates = problem.candidates()[find_reference(problem)], problem.learning_rates
    if not rates:
        return []
    place = rates.index(reference.learning_rate or 0.0)
    near = [rates[k] for k in (place - 1, place + 1) if 0 <= k < len(rates)]
    return [problem.candidates().index(problem.make_setting(reference.allocation, rate)) for rate in near]


def find_final_length(problem: Problem) -> int:
    """The least length of runs that is at least `FINAL_SHARE` of a full run, in examples."""
    return min(each for each in problem.list_lengths() if each >= FINAL_SHARE * problem.full_examples)


def find_incumbent(problem: Problem, runs: Sequence[Run]) -> int:
    """The reference or the rival that had the lowest loss in the final of rates; without a final, the reference.

    What has diverged is not taken: where the reference has, it is the rival with the lowest rate, unless a final knows
    better.
    """
    reference, final_length = find_reference(problem), find_final_length(problem)
    places = {problem.candidates()[c]: c for c in (reference, *list_rivals(problem))}
    own = [run for run in runs if run.member.setting in places and run.member.data_examples == problem.num_train]
    diverged = {places[run.member.setting] for run in own if run.status == "diverged"}
    losses = {
        places[run.member.setting]: dict(zip(run.examples, run.validation_loss, strict=True)).get(final_length)
        for run in own
    }
    finalists = {c: loss for c, loss in losses.items() if loss is not None and c not in diverged}
    if finalists and (reference in finalists or reference in diverged):
        return min(finalists, key=finalists.__getitem__)
    left = [c for c in list_rivals(problem) if c not in diverged]
    return left[0] if reference in diverged and left else reference
