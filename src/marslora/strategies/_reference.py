"""The reference: the setting that is taken unless another one is surely better."""

from __future__ import annotations

from marslora.strategies._problem import Problem


def find_reference(problem: Problem) -> int:
    """The candidate with the most parameters at the middle learning rate.

    Of all rules that measure nothing it did best on the tables, whichever task was left out (docs/benchmarks.md).
    """
    candidates = problem.candidates()
    at_middle = [c for c, each in enumerate(candidates) if each == problem.at_middle_rate(each.allocation)]
    return max(at_middle, key=lambda c: problem.count_parameters(candidates[c].allocation))
