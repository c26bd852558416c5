"""`bench.html`: the results of searches replayed on tables of finished runs, on one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marslora.core.decision import Interval
from marslora.core.files import write_text
from marslora.replay import BenchmarkResult, RegretSummary, Reliability, measure_reliability, rank_families
from marslora.report.figures.benchmark import (
    draw_charts_by_table,
    draw_cost_charts,
    draw_regret_charts,
    draw_reliability_charts,
)
from marslora.report.markup import Markup, bullets, cell, collapse, join, paragraphs, section, table, tag
from marslora.report.numbers import (
    NONE,
    format_count,
    format_duration,
    format_loss,
    format_percent,
    format_run_count,
    join_words,
    pluralise,
)
from marslora.report.page import render_charts, render_document

NAME = "bench.html"


def write_page(bench: BenchmarkResult, path: Path) -> Path:
    """Write the page to ``path`` and return that path."""
    write_text(path, render_document(f"{write_headline(bench)} - marslora", render_body(bench)))
    return path


def write_headline(bench: BenchmarkResult) -> str:
    """The result at the highest of the compared costs, in one sentence without a full stop."""
    cost = bench.costs[-1]
    rows = rank_families(bench.scores, cost, bench.reference)
    better = [row.family for row in rows if row.difference and row.difference.high < 0]
    if not rows:
        return f"No search costs at most {format_run_count(cost)} full runs"
    if better:
        verb = "ends" if len(better) == 1 else "end"
        winners = f"{join_words(better)} {verb} closer to the best allocation than {bench.reference}"
        return f"At {format_run_count(cost)} full runs, {winners}"
    return f"At {format_run_count(cost)} full runs, no search is distinguishably better than {bench.reference}"


def write_summary_lines(bench: BenchmarkResult) -> list[str]:
    """Sentences that say what was replayed and how to read the results."""
    instances = {score.instance for score in bench.scores}
    limits = sorted({score.max_share for score in bench.scores}, reverse=True)
    most = join_words([format_percent(share) for share in limits], "or")
    scope = (
        f"{pluralise(len(instances), 'instance')}: {pluralise(len(bench.tables), 'table')} of finished runs, each "
        f"with all its seeds, and candidates limited to {most} of the largest one's parameters. "
        f"{pluralise(len(bench.scores), 'replay')}."
    )
    rule = (
        "Regret is how far the lowest loss of the choice within a full run lies above that of the best "
        "candidate, both as means over the table's seeds, in nats per answer token (the unit of the cross-entropy "
        "loss). A full run trains one setting to the end, with its validations. A search pays for all training and "
        "validation before its final run, and for the rest of the final run."
    )
    choice = (
        "A family is a strategy with several settings that spend different amounts. Between two settings, regret is "
        "interpolated, and a setting never counts as worse than the best cheaper one, which slightly favours families "
        "with many settings."
    )
    return [scope, rule, choice, *bench.notes()]


def measure_reliabilities(bench: BenchmarkResult) -> list[Reliability]:
    """Measure the reliability of every family that reports probabilities."""
    measured = (measure_reliability(bench.scores, family) for family in bench.families)
    return [each for each in measured if each is not None]


def render_body(bench: BenchmarkResult) -> Markup:
    """Everything between the page's head and its scripts."""
    lines = write_summary_lines(bench)
    head = tag(
        "header",
        tag("p", "searches replayed on finished runs", class_="kicker"),
        tag("h1", write_headline(bench)),
        paragraphs(lines[:2]),
    )
    results = (join([tag("h3", _describe_cost(cost)), _build_ranking_table(bench, cost)]) for cost in bench.costs)
    explained = (
        f"Regret with its 90 % interval, the difference from {bench.reference} (the reference) at the reference's "
        "cost, and the number of instances."
    )
    main = tag(
        "main",
        section("results", "Ranking", tag("p", explained), *results, bullets(lines[2:])),
        section(
            "cost",
            "Regret against cost",
            render_charts(draw_regret_charts(bench)),
            render_charts(draw_cost_charts(bench)),
        ),
        section("tables", "Table by table", _build_regret_by_table(bench), render_charts(draw_charts_by_table(bench))),
        section(
            "reliability", "Reliability", _build_reliability_table(bench), render_charts(draw_reliability_charts(bench))
        ),
        section(
            "details", "Details", _build_tables_table(bench), collapse("Every setting", _build_settings_table(bench))
        ),
    )
    foot = f"Replayed in {format_duration(bench.seconds)}. All replays are in bench.json."
    return join([head, main, tag("footer", foot)])


def _describe_cost(cost: float) -> str:
    return f"At {format_run_count(cost)} full runs, the final run included"


def _build_ranking_table(bench: BenchmarkResult, cost: float) -> Markup:
    rows = rank_families(bench.scores, cost, bench.reference)
    cells = [
        [
            cell(row.family),
            _interval_cell(row.regret),
            _interval_cell(row.difference, sign="+"),
            cell(format_reference_cost(row), number=True),
            cell(format_count(row.num_instances), number=True),
        ]
        for row in rows
    ]
    marks = ["picked" if row.family == bench.reference else "" for row in rows]
    heads = ["family", "regret", "difference", "reference cost", "instances"]
    return table(heads, cells, name="sortable", marks=marks)


def format_reference_cost(row: RegretSummary) -> str:
    """The cost of the reference that a row is compared with, in full runs."""
    return NONE if row.reference_cost is None else format_run_count(row.reference_cost)


def _interval_cell(interval: Interval | None, sign: str = "") -> Markup:
    if interval is None:
        return cell(NONE, sort=0, number=True)
    show = format_loss if not sign else "{:+.4f}".format
    return cell(
        f"{show(interval.value)} ({show(interval.low)} to {show(interval.high)})", sort=interval.value, number=True
    )


def _build_regret_by_table(bench: BenchmarkResult) -> Markup:
    """Mean regret of every family on every table at the last of the costs."""
    cost, rows = bench.costs[-1], []
    regret_of = {
        header.name: {
            row.family: row.regret.value
            for row in rank_families([s for s in bench.scores if s.table == header.name], cost, bench.reference)
        }
        for header in bench.tables
    }
    for family in bench.families:
        values = [regret_of[header.name].get(family) for header in bench.tables]
        if any(value is not None for value in values):
            rows.append([cell(family), *(cell(format_loss(value), sort=value or 0, number=True) for value in values)])
    heads = ["family", *(header.name for header in bench.tables)]
    return join([tag("p", f"Mean regret at {format_run_count(cost)} full runs."), table(heads, rows, name="sortable")])


def _build_reliability_table(bench: BenchmarkResult) -> Markup:
    reliabilities = measure_reliabilities(bench)
    if not reliabilities:
        return tag("p", "No family reports probabilities.")
    names = [header.name for header in bench.tables]
    rows = [
        [
            cell(each.family),
            cell(format_percent(each.coverage_best), number=True),
            cell(format_percent(each.coverage), number=True),
            cell(f"{each.mean_plausible:.1f}", number=True),
            *(cell(format_percent(each.indistinguishable.get(name)), number=True) for name in names),
        ]
        for each in reliabilities
    ]
    heads = ["family", "best in the plausible set", "best or tied in it", "size of the set", *names]
    note = (
        "The plausible set holds 90 % of the probability. The columns named after tables show the share of replays "
        "whose verdict was that allocations are indistinguishable."
    )
    return join([table(heads, rows), tag("p", note, class_="soft")])


def _build_tables_table(bench: BenchmarkResult) -> Markup:
    rows = [
        [
            cell(join([header.name, tag("div", header.description, class_="soft")], "")),
            cell("; ".join(f"{part} {', '.join(map(str, ranks))}" for part, ranks in header.space.ladders)),
            cell(format_count(header.num_train), number=True),
            cell(format_count(header.full_examples), number=True),
            cell(f"{header.learning_rate:g}", number=True),
            cell(format_count(len(header.seeds)), number=True),
        ]
        for header in bench.tables
    ]
    return table(["table", "ranks", "rows", "examples of a run", "learning rate", "seeds"], rows)


def _build_settings_table(bench: BenchmarkResult) -> Markup:
    replays: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for score in bench.scores:
        replays.setdefault((score.family, score.setting), []).append((score.cost, score.regret, score.seconds))
    rows = [
        [
            cell(family),
            cell(setting or "default"),
            *(cell(format_loss(_mean_of_column(numbers, n)), number=True) for n in range(3)),
        ]
        for (family, setting), numbers in replays.items()
    ]
    return table(["family", "setting", "full runs", "regret", "seconds"], rows, name="sortable")


def _mean_of_column(values: Sequence[tuple[float, float, float]], column: int) -> float:
    return sum(each[column] for each in values) / len(values)
