"""Build the page's tables: parts, candidates, data, results, costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from marslora.core.decision import Candidate, Interval
from marslora.core.runs import Cost, FinalResult
from marslora.report.data import ReportData
from marslora.report.markup import Markup, cell, join, table, tag
from marslora.report.numbers import (
    NONE,
    abbreviate_count,
    format_accuracy,
    format_bytes,
    format_count,
    format_interval,
    format_loss,
    format_number,
    format_percent,
    format_setting,
)


def build_parts_table(data: ReportData) -> Markup:
    """Build a table of the model's parts with their chosen ranks and learning rates."""
    whole = data.spec.training.full
    rows, marks = [], []
    training = data.decision.setting.apply_to(data.spec.training)
    for part in data.info.parts:
        rank = data.decision.chosen.get(part.name, -1)
        searched = part.name in data.space.searched
        ladder = data.space.ladder(part.name) if part.name in data.space.parts else ()
        use_dora = data.spec.training.use_dora
        whole_part = part.name in whole and part.reached is not False
        trained = part.num_parameters if whole_part else part.num_trainable(max(rank, 0), use_dora=use_dora)
        among = f"of {', '.join(map(str, ladder))}" if searched else "fixed" if ladder else "not adapted"
        among = "no gradient reaches it" if part.reached is False else among
        chosen = "whole" if whole_part else NONE if rank < 0 else str(rank)
        dead = len(part.linears) - len(part.alive)
        rows.append(
            [
                tag("span", part.name, class_="name"),
                cell(tag("strong", chosen), number=True),
                tag("span", "trained whole" if whole_part else among, class_="soft"),
                cell(f"{training.rate_of(part.name):.2g}" if trained else NONE, number=True),
                cell(format_count(trained), number=True),
                cell(format_count(part.num_parameters), number=True),
                cell(format_count(len(part.linears)), number=True),
                cell(format_count(dead) if dead else NONE, number=True),
            ]
        )
        marks.append("picked" if searched else "")
    heads = ["part", "chosen rank", "ladder", "learning rate", "trainable parameters", "parameters", "linear layers"]
    return table([*heads, "dead layers"], rows, marks=marks)


def build_effects_table(data: ReportData) -> Markup:
    """Build a table of the choices: what the worst value of each costs, with all others at their best for it."""
    rows = [
        [
            tag("span", effect.knob, class_="name"),
            effect.best,
            effect.worst,
            cell(format_interval(effect.nats), number=True),
            cell(format_percent(effect.share.value), number=True),
            effect.verdict,
        ]
        for effect in data.decision.effects
    ]
    heads = ["choice", "best", "worst", "the worst costs (nats, 90 %)", "share of what training gains", "verdict"]
    return table(heads, rows)


def build_candidates_table(data: ReportData) -> Markup:
    """Build a table of all candidates, each with its numbers and the reason why it was chosen, kept or dropped."""
    names = data.searched
    rates = ["learning rate"] if any(c.learning_rate is not None for c in data.decision.candidates) else []
    heads = [
        *names,
        *rates,
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
        data.decision.candidates, key=lambda c: (order[c.status], -(c.p_best or 0), _sort_by_value(c.predicted_loss))
    )
    rows = [
        [
            *(cell(c.allocation.get(name), number=True) for name in names),
            *([_rate_cell(c)] if rates else ()),
            *_candidate_cells(c, data),
        ]
        for c in ordered
    ]
    marks = [{"chosen": "picked", "dropped": "faint", "kept": ""}[candidate.status] for candidate in ordered]
    return table(heads, rows, name="sortable", marks=marks)


def _rate_cell(candidate: Candidate) -> Markup:
    own = "".join(f", {part} {rate:.2g}" for part, rate in candidate.part_learning_rates.items())
    rate = candidate.learning_rate
    return cell(NONE if rate is None else f"{rate:.2g}{own}", sort=_sort_key(rate), number=True)


def _candidate_cells(candidate: Candidate, data: ReportData) -> list[Markup]:
    trainable = candidate.num_trainable or data.num_trainable(candidate.allocation)
    seen = candidate.observed_loss
    at = "" if candidate.observed_examples is None else f" at {abbreviate_count(candidate.observed_examples)}"
    times = "; ".join(f"{part} {abbreviate_count(t.value)}" for part, t in candidate.convergence_examples.items())
    imbalance = candidate.imbalance
    apart = NONE if imbalance is None else f"{format_number(math.exp(imbalance.value))} x"
    return [
        cell(tag("span", candidate.status, class_=f"badge {candidate.status}")),
        cell(abbreviate_count(trainable), sort=trainable, number=True),
        cell(format_interval(candidate.predicted_loss), sort=_sort_by_value(candidate.predicted_loss), number=True),
        cell(NONE if seen is None else f"{format_loss(seen)}{at}", sort=_sort_key(seen), number=True),
        cell(
            tag("span", apart, title=f"examples until converged: {times}" if times else None),
            sort=_sort_by_value(imbalance),
            number=True,
        ),
        cell(format_percent(candidate.p_best), sort=_sort_key(candidate.p_best, -1.0), number=True),
        cell(format_loss(candidate.expected_regret), sort=_sort_key(candidate.expected_regret), number=True),
        cell(candidate.reason),
    ]


def _sort_by_value(interval: Interval | None) -> float:
    return _sort_key(None if interval is None else interval.value)


def _sort_key(value: float | None, missing: float = 1e300) -> float:
    return missing if value is None or not math.isfinite(value) else value


def build_results_table(data: ReportData) -> Markup:
    """Build a table of losses and accuracies before and after the final run, and of the uniform baseline."""
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
        *([f"{final.metric.name}, validation"] if final.metric else []),
        *([f"{final.metric.name}, test"] if final.metric and tested else []),
    ]
    base = (final.base_validation_loss, final.base_validation_accuracy, final.base_test_loss, final.base_test_accuracy)
    untrained = (final.metric.base_validation, final.metric.base_test) if final.metric else ()
    rows = [[*_losses_row("before training", 0, *base, tested), *_metric_cells(untrained, tested)]]
    if data.uniform is not None:
        rank = data.uniform.allocation.get(data.searched[0])
        rows.append(_result_row(f"uniform rank {rank}", data.uniform, tested))
    rows.append(_result_row(format_setting(data.decision.setting), final, tested))
    return table(heads, rows, marks=[*[""] * (len(rows) - 1), "picked"])


def _result_row(name: str, result: FinalResult, tested: bool) -> list[Markup]:
    seen = (result.validation_loss, result.validation_accuracy, result.test_loss, result.test_accuracy)
    measured = (result.metric.validation, result.metric.test) if result.metric else ()
    return [*_losses_row(name, result.num_trainable, *seen, tested), *_metric_cells(measured, tested)]


def _metric_cells(values: Sequence[float | None], tested: bool) -> list[Markup]:
    return [cell(format_number(value), number=True) for value in values[: 2 if tested else 1]]


def _losses_row(
    name: str, trainable: int, value: float, right: float, test: float | None, test_right: float | None, tested: bool
) -> list[Markup]:
    numbers = [abbreviate_count(trainable) if trainable else NONE, format_loss(value), format_accuracy(right)]
    numbers += [format_loss(test), format_accuracy(test_right)] if tested else []
    return [cell(name), *(cell(number, number=True) for number in numbers)]


def build_data_table(data: ReportData) -> Markup:
    """Build a table of the numbers of rows in each split, and list the first unusable rows."""
    summary = data.summary
    if summary is None:
        return Markup("")
    values = [summary.num_train, summary.num_validation, summary.num_test, summary.num_bad]
    heads = ["training rows", "validation rows", "test rows", "unusable rows", "answer tokens a row", "tokens a row"]
    line = [cell(format_count(value), number=True) for value in values]
    line += [
        cell(format_number(value) if value else NONE, number=True) for value in (summary.answer_tokens, summary.tokens)
    ]
    bad = [tag("li", row) for row in summary.bad_rows]
    return join([table(heads, [line]), tag("ul", *bad, class_="soft") if bad else Markup("")])


def build_cost_table(data: ReportData) -> Markup:
    """Build a table of the cost of every phase, in which calibration is also divided by the purpose of its runs."""
    phases = [("preparation", data.preparation)] if data.preparation.seconds else []
    phases += [("calibration", data.decision.calibration)]
    purposes = dict.fromkeys(run.member.purpose for run in data.runs)
    if len(purposes) > 1:
        phases += [(f"of which {name or 'other runs'}", _sum_cost(data, name)) for name in purposes]
    phases += [("final run", data.final.cost)] if data.final else []
    phases += [("uniform baseline", data.uniform.cost)] if data.uniform else []
    rows = [
        [
            cell(name),
            cell(format_number(cost.seconds), number=True),
            cell(format_count(cost.examples), number=True),
            cell(format_number(data.count_full_runs(cost)), number=True),
            cell(f"{cost.flops:.3g}" if cost.flops else NONE, number=True),
            cell(format_bytes(cost.peak_bytes), number=True),
        ]
        for name, cost in phases
    ]
    return table(["", "seconds", "examples seen", "full runs", "FLOPs", "peak memory"], rows)


def _sum_cost(data: ReportData, purpose: str) -> Cost:
    """Add up the cost of the runs of one purpose."""
    return sum((run.cost for run in data.runs if run.member.purpose == purpose), Cost())
