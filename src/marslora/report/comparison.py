"""`compare.html`: the results of a comparison of methods, on one self-contained page."""

from __future__ import annotations

from pathlib import Path

from marslora.core.allocation import Allocation
from marslora.core.comparison import Comparison, MethodSummary
from marslora.core.decision import Interval
from marslora.core.files import write_text
from marslora.report.figures.methods import METRICS, draw_charts
from marslora.report.markup import Markup, bullets, cell, collapse, join, paragraphs, section, table, tag
from marslora.report.numbers import (
    NONE,
    abbreviate_count,
    format_accuracy,
    format_bytes,
    format_count,
    format_duration,
    format_loss,
    format_number,
    format_ranks,
    join_words,
    pluralise,
)
from marslora.report.page import render_charts, render_document

NAME = "compare.html"
EQUAL = {
    "parameters": "Ranks were scaled so that every method trains as many parameters as the reference, on as many "
    "examples.",
    "compute": "Ranks were not scaled; every method trains on as many examples as the operations of the reference "
    "pay for.",
    "examples": "Ranks were not scaled; every method trains on the same number of examples.",
}


def write_page(comparison: Comparison, path: Path) -> Path:
    """Write the page to ``path`` and return that path."""
    write_text(path, render_document(f"{write_headline(comparison)} - marslora", render_body(comparison)))
    return path


def write_headline(comparison: Comparison) -> str:
    """The result in one sentence without a full stop."""
    reference = comparison.reference.name
    others = [each for each in comparison.ordered() if each.difference is not None]
    better = [each.name for each in others if each.difference and each.difference.high < 0]
    if better:
        verb = "ends" if len(better) == 1 else "end"
        return f"{join_words(better)} {verb} with a lower loss than {reference}"
    if not others:
        return f"Only {reference} has results, so there is nothing to compare it with"
    if len(comparison.seeds) == 1:
        return "One seed is too few to tell the methods apart"
    return f"No method ends with a lower loss than {reference}"


def write_summary_lines(comparison: Comparison) -> list[str]:
    """Sentences that say what was equal for all methods, how certain the differences are, and what failed."""
    reference, seeds = comparison.reference, pluralise(len(comparison.seeds), "seed")
    sentences = [
        f"{EQUAL[comparison.equal]} {reference.name} trains {format_count(reference.num_trainable)} parameters on "
        f"{format_count(comparison.full_examples)} examples; all methods use the same rows, order and {seeds}."
    ]
    differences = [each.difference for each in comparison.methods if each.difference is not None]
    if len(comparison.seeds) > 1 and differences:
        num_clear = sum(each.high < 0 or each.low > 0 for each in differences)
        number, verb = len(differences), "is" if num_clear == 1 else "are"
        sentences.append(
            f"{num_clear} of {pluralise(number, 'difference')} from {reference.name} {verb} distinguishable from 0 "
            f"(90 % intervals, paired by seed; with {pluralise(number, 'method')}, about {0.1 * number:.1g} would be "
            "so by chance)."
        )
    sentences += _describe_metric(comparison)
    sentences += [f"{each.name}: {problem}" for each in comparison.methods for problem in list_problems(each)]
    return sentences


def _describe_metric(comparison: Comparison) -> list[str]:
    """What chose the points that were kept, and how well the loss stood for it; empty if the loss did."""
    if comparison.answer_metric is None:
        return []
    runs = pluralise(sum(len(method.results) for method in comparison.methods), "finished run")
    link = "too few runs differ in it and in the loss to tell how well one stands for the other"
    if comparison.loss_correlation is not None:
        link = (
            f"over the {runs} its rank correlation with the loss is {comparison.loss_correlation:.2f} (-1: they agree)"
        )
    return [f"The point of the highest {comparison.answer_metric} was kept of every run; {link}."]


def write_failures(comparison: Comparison) -> str:
    """A sentence that names the methods without all their results, and what to do; empty if there is none."""
    failed = [each.name for each in comparison.methods if list_problems(each)]
    if not failed:
        return ""
    return (
        f"{len(failed)} of {pluralise(len(comparison.methods), 'method')} failed: {join_words(failed)}. The reasons "
        "are below; run the same command again to train what is missing."
    )


def list_problems(method: MethodSummary) -> list[str]:
    """The reasons why a method has no results, or fewer than there are seeds; empty for a complete method."""
    failed = [f"seed {run.seed} failed ({run.error})" for run in method.runs if run.error]
    return [f"left out ({method.error})"] if method.error else failed


def render_body(comparison: Comparison) -> Markup:
    """Everything between the page's head and its scripts."""
    kicker = f"{comparison.architecture}; {METRICS[comparison.metric]}; equal {comparison.equal}"
    bad = [(each.name, problem) for each in comparison.methods for problem in list_problems(each)]
    notices = (
        tag("div", tag("strong", name), tag("p", problem), class_="notice bad", role="note") for name, problem in bad
    )
    head = tag(
        "header",
        tag("p", kicker, class_="kicker"),
        tag("h1", write_headline(comparison)),
        paragraphs(write_summary_lines(comparison)[: 2 if len(comparison.seeds) > 1 else 1]),
        paragraphs(_describe_metric(comparison)),
        join(notices),
    )
    main = tag(
        "main",
        section("results", "Results", build_methods_table(comparison), render_charts(draw_charts(comparison))),
        section("methods", "What was trained", build_settings_table(comparison), _write_notes(comparison)),
        section(
            "details", "Details", collapse("Every run", build_runs_table(comparison)), _render_versions(comparison)
        ),
    )
    foot = f"Model {comparison.model}. Losses are the mean cross-entropy on held-out rows, in nats per answer token."
    return join([head, main, tag("footer", foot)])


def build_methods_table(comparison: Comparison) -> Markup:
    """Losses, differences and costs, lowest loss first; the reference is marked."""
    tested = comparison.metric == "test_loss"
    heads = ["method", *(["test loss"] if tested else []), "validation loss", "difference", "answer tokens right"]
    answers = comparison.answer_metric
    heads += [answers, f"difference in {answers}"] if answers else []
    heads += ["trainable", "seconds", "FLOPs", "peak memory"]
    rows, marks = [], []
    for method in comparison.ordered():
        right = method.test_accuracy if tested else method.validation_accuracy
        cost = method.cost
        cells = [*([_interval_cell(method.test_loss)] if tested else []), _interval_cell(method.validation_loss)]
        cells += [
            _interval_cell(method.difference, sign="+"),
            cell(format_accuracy(right.value if right else None), number=True),
        ]
        if answers:
            cells += [_interval_cell(method.answer_metric), _interval_cell(method.answer_metric_difference, sign="+")]
        cells += [cell(abbreviate_count(method.num_trainable), sort=method.num_trainable, number=True)]
        cells += [cell(format_number(cost.seconds) if cost else NONE, number=True)]
        cells += [cell(f"{cost.flops:.3g}" if cost else NONE, number=True)]
        cells += [
            cell(format_bytes(cost.peak_bytes) if cost else NONE, sort=cost.peak_bytes if cost else 0, number=True)
        ]
        rows.append([cell(method.name), *cells])
        marks.append("picked" if method is comparison.reference else "faint" if cost is None else "")
    return table(heads, rows, name="sortable", marks=marks)


def _interval_cell(interval: Interval | None, sign: str = "") -> Markup:
    if interval is None:
        return cell(NONE, sort=1e300, number=True)
    show = format_loss if not sign else "{:+.4f}".format
    bounds = f" ({show(interval.low)} to {show(interval.high)})" if interval.low == interval.low else ""
    return cell(f"{show(interval.value)}{bounds}", sort=interval.value, number=True)


def build_settings_table(comparison: Comparison) -> Markup:
    """Return a table of the methods with the plugins, ranks and settings that each trained with."""
    rows = []
    for method in comparison.methods:
        training = method.training
        if training is None or method.allocation is None:
            continue
        rates = "".join(f", {part} {rate:g}" for part, rate in training.part_learning_rates.items())
        choices = [training.adapter.name, training.optimizer.name]
        choices += [training.gradients.name] if training.objectives else []
        rows.append(
            [
                cell(join([method.name, tag("div", method.summary, class_="soft")], "")),
                cell(", ".join(choices)),
                cell(summarise_ranks(method.allocation)),
                cell(f"{training.learning_rate:g}{rates}"),
                cell(format_number(training.alpha_over_rank), number=True),
                cell(format_number(training.dropout), number=True),
                cell(format_count(method.examples), number=True),
                cell(format_count(method.num_planned), number=True),
                cell(method.source),
            ]
        )
    heads = ["method", "plugins", "ranks", "learning rates", "alpha / r", "dropout", "examples", "parameters", "source"]
    return table(heads, rows)


def summarise_ranks(allocation: Allocation) -> str:
    """``16`` if every part has rank 16, else the ranks by part, e.g. ``vision 4, language 16``."""
    ranks = {rank for _, rank in allocation.ranks}
    return str(ranks.pop()) if len(ranks) == 1 else format_ranks(allocation)


def _write_notes(comparison: Comparison) -> Markup:
    first, notes = comparison.reference.num_planned, []
    deviations = {each.name: each.num_planned / first - 1 for each in comparison.methods if each.num_planned and first}
    if comparison.equal == "parameters" and len(deviations) > 1:
        name = max(deviations, key=lambda each: abs(deviations[each]))
        notes.append(
            "Ranks are whole numbers, so the methods do not train exactly as many parameters; "
            f"{name} deviates most, by {deviations[name]:+.1%}."
        )
    notes += [
        f"{each.name} was planned with {format_count(each.num_planned)} parameters and ended with "
        f"{format_count(each.num_trainable)}."
        for each in comparison.methods
        if each.results and each.num_trainable != each.num_planned
    ]
    notes.append(
        "Operations count what a method computes before its first step, training, and validation and test losses."
    )
    notes.append("Seconds are wall time on this machine, which may have been busy with other work.")
    return bullets(notes)


def build_runs_table(comparison: Comparison) -> Markup:
    """Return a table with one row for each run."""
    rows = [
        [
            cell(method.name),
            cell(seed, number=True),
            cell(format_loss(result.validation_loss), number=True),
            cell(format_loss(result.test_loss), number=True),
            cell(format_duration(result.cost.seconds), number=True),
            cell(tag("code", result.adapter_folder)),
        ]
        for method in comparison.methods
        for seed, result in method.results.items()
    ]
    return table(["method", "seed", "validation loss", "test loss", "time", "adapter"], rows, name="sortable")


def _render_versions(comparison: Comparison) -> Markup:
    versions = "\n".join(f"{name} {version}" for name, version in comparison.versions.items())
    return collapse(
        "Versions and device", tag("pre", f"device {comparison.device or 'not recorded'}\n{versions}".strip())
    )
