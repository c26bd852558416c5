"""The page's tables: parts, candidates, data, results."""

from __future__ import annotations

import math

from marslora.core.decision import Candidate, Interval
from marslora.core.runs import Cost, FinalResult
from marslora.report.data import ReportData
from marslora.report.markup import Markup, cell, join, table, tag
from marslora.report.numbers import NONE, accuracy, between, compact, count, loss, percent, ranks, short, size


def build_parts_table(data: ReportData) -> Markup:
    """Every part of the model with its chosen rank."""
    whole = data.spec.training.full
    rows, marks = [], []
    for part in data.info.parts:
        rank = data.decision.chosen.get(part.name, -1)
        searched = part.name in data.spec.space.searched
        ladder = data.spec.space.ladder(part.name) if part.name in data.spec.space.parts else ()
        use_dora = data.spec.training.use_dora
        trained = part.num_parameters if part.name in whole else part.num_trainable(max(rank, 0), use_dora=use_dora)
        among = f"of {', '.join(map(str, ladder))}" if searched else "fixed" if ladder else "not adapted"
        chosen = "whole" if part.name in whole else NONE if rank < 0 else str(rank)
        dead = len(part.linears) - len(part.alive)
        rows.append(
            [
                tag("span", part.name, class_="name"),
                cell(tag("strong", chosen), number=True),
                tag("span", "trained whole" if part.name in whole else among, class_="soft"),
                cell(count(trained), number=True),
                cell(count(part.num_parameters), number=True),
                cell(count(len(part.linears)), number=True),
                cell(count(dead) if dead else NONE, number=True),
            ]
        )
        marks.append("picked" if searched else "")
    heads = ["part", "chosen rank", "ladder", "trainable parameters", "parameters", "linear layers", "dead layers"]
    return table(heads, rows, marks=marks)


def build_candidates_table(data: ReportData) -> Markup:
    """Every candidate with its numbers and the reason for what became of it; columns sort on a click."""
    names = data.searched
    heads = [
        *names,
        "status",
        "trainable",
        "expected loss (90 %)",
        "observed",
        "imbalance",
        "P(best)",
        "regret",
        "reason",
    ]
    order = {"chosen": 0, "kept": 1, "dropped": 2}
    ordered = sorted(
        data.decision.candidates, key=lambda c: (order[c.status], -(c.p_best or 0), _middle(c.predicted_loss))
    )
    rows = [[*(cell(c.allocation.get(name), number=True) for name in names), *_candidate(c, data)] for c in ordered]
    marks = [{"chosen": "picked", "dropped": "faint", "kept": ""}[candidate.status] for candidate in ordered]
    return table(heads, rows, name="sortable", marks=marks)


def _candidate(candidate: Candidate, data: ReportData) -> list[Markup]:
    trainable = candidate.num_trainable or data.num_trainable(candidate.allocation)
    seen = candidate.observed_loss
    at = "" if candidate.observed_examples is None else f" at {compact(candidate.observed_examples)}"
    times = "; ".join(f"{part} {compact(t.value)}" for part, t in candidate.convergence_examples.items())
    imbalance = candidate.imbalance
    apart = NONE if imbalance is None else f"{short(math.exp(imbalance.value))} x"
    return [
        cell(tag("span", candidate.status, class_=f"badge {candidate.status}")),
        cell(compact(trainable), sort=trainable, number=True),
        cell(between(candidate.predicted_loss), sort=_middle(candidate.predicted_loss), number=True),
        cell(NONE if seen is None else f"{loss(seen)}{at}", sort=_number(seen), number=True),
        cell(
            tag("span", apart, title=f"examples until converged: {times}" if times else None),
            sort=_middle(imbalance),
            number=True,
        ),
        cell(percent(candidate.p_best), sort=_number(candidate.p_best, -1.0), number=True),
        cell(loss(candidate.expected_regret), sort=_number(candidate.expected_regret), number=True),
        cell(candidate.reason),
    ]


def _middle(interval: Interval | None) -> float:
    return _number(None if interval is None else interval.value)


def _number(value: float | None, missing: float = 1e300) -> float:
    return missing if value is None or not math.isfinite(value) else value


def build_results_table(data: ReportData) -> Markup:
    """Losses and accuracies before and after the final run, and of the uniform baseline."""
    final = data.final
    if final is None:
        return Markup("")
    tested = final.test_loss is not None
    heads = [
        "model",
        "trainable",
        "validation loss",
        "validation accuracy",
        *(["test loss", "test accuracy"] if tested else []),
    ]
    base = (final.base_validation_loss, final.base_validation_accuracy, final.base_test_loss, final.base_test_accuracy)
    rows = [_result("before training", 0, *base, tested)]
    if data.uniform is not None:
        rank = data.uniform.allocation.get(data.searched[0])
        rows.append(_trained(f"uniform rank {rank}", data.uniform, tested))
    rows.append(_trained(ranks(data.decision.chosen), final, tested))
    return table(heads, rows, marks=[*[""] * (len(rows) - 1), "picked"])


def _trained(name: str, result: FinalResult, tested: bool) -> list[Markup]:
    seen = (result.validation_loss, result.validation_accuracy, result.test_loss, result.test_accuracy)
    return _result(name, result.num_trainable, *seen, tested)


def _result(
    name: str, trainable: int, value: float, right: float, test: float | None, test_right: float | None, tested: bool
) -> list[Markup]:
    numbers = [compact(trainable) if trainable else NONE, loss(value), accuracy(right)]
    numbers += [loss(test), accuracy(test_right)] if tested else []
    return [cell(name), *(cell(number, number=True) for number in numbers)]


def build_data_table(data: ReportData) -> Markup:
    """The rows of each split, and the first unusable ones."""
    summary = data.summary
    if summary is None:
        return Markup("")
    values = [summary.num_train, summary.num_validation, summary.num_test, summary.num_bad]
    heads = ["training rows", "validation rows", "test rows", "unusable rows", "answer tokens a row", "tokens a row"]
    line = [cell(count(value), number=True) for value in values]
    line += [cell(short(value) if value else NONE, number=True) for value in (summary.answer_tokens, summary.tokens)]
    bad = [tag("li", row) for row in summary.bad_rows]
    return join([table(heads, [line]), tag("ul", *bad, class_="soft") if bad else Markup("")])


def build_cost_table(data: ReportData) -> Markup:
    """What every phase cost, number by number; calibration also by what its runs were for."""
    found = [("preparation", data.preparation)] if data.preparation.seconds else []
    found += [("calibration", data.decision.calibration)]
    purposes = dict.fromkeys(run.member.purpose for run in data.runs)
    if len(purposes) > 1:
        found += [(f"of which {name or 'other runs'}", _cost_of(data, name)) for name in purposes]
    found += [("final run", data.final.cost)] if data.final else []
    found += [("uniform baseline", data.uniform.cost)] if data.uniform else []
    rows = [
        [
            cell(name),
            cell(short(cost.seconds), number=True),
            cell(count(cost.examples), number=True),
            cell(short(cost.full_runs(data.full_examples)), number=True),
            cell(f"{cost.flops:.3g}" if cost.flops else NONE, number=True),
            cell(size(cost.peak_bytes), number=True),
        ]
        for name, cost in found
    ]
    return table(["", "seconds", "examples seen", "full runs", "FLOPs", "peak memory"], rows)


def _cost_of(data: ReportData, purpose: str) -> Cost:
    """What the runs of one purpose cost."""
    return sum((run.cost for run in data.runs if run.member.purpose == purpose), Cost())
