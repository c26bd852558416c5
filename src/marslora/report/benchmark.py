"""`bench.html`: searches replayed on tables of finished runs, on one self-contained page."""

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
from marslora.report.numbers import NONE, count, duration, listing, loss, percent, plural, shares
from marslora.report.page import render_charts, render_document

NAME = "bench.html"


def write_page(bench: BenchmarkResult, path: Path) -> Path:
    """Write the page to ``path`` and return that path."""
    write_text(path, render_document(f"{headline(bench)} - marslora", render_body(bench)))
    return path


def headline(bench: BenchmarkResult) -> str:
    """The result at the last of the costs, in one sentence."""
    cost = bench.costs[-1]
    rows = rank_families(bench.scores, cost, bench.reference)
    better = [row.family for row in rows if row.difference and row.difference.high < 0]
    if not rows:
        return f"No search costs at most {shares(cost)} full runs"
    if better:
        verb = "ends" if len(better) == 1 else "end"
        winners = f"{listing(better)} {verb} closer to the best allocation than {bench.reference}"
        return f"At {shares(cost)} full runs, {winners}"
    return f"At {shares(cost)} full runs, no search is distinguishably better than {bench.reference}"


def summary_lines(bench: BenchmarkResult) -> list[str]:
    """What was replayed, and how to read it."""
    instances = {score.instance for score in bench.scores}
    limits = sorted({score.max_share for score in bench.scores}, reverse=True)
    most = listing([percent(share) for share in limits], "or")
    said = (
        f"{plural(len(instances), 'instance')}: {plural(len(bench.tables), 'table')} of finished runs, each "
        f"with all its seeds, and candidates limited to {most} of the largest one's parameters. "
        f"{plural(len(bench.scores), 'replay')}."
    )
    rule = (
        "Regret is how far the lowest loss of the chosen allocation within a full run lies above that of the best one, "
        "as means over the table's seeds, in nats per answer token (the unit of the cross-entropy loss). A full "
        "run trains one allocation to the end. A search pays for every example that it trains on, and for what is "
        "left of the final run."
    )
    choice = (
        "A family is a strategy with several settings, which differ in what they spend. Between two settings, regret "
        "is interpolated, and a setting never counts as worse than the best cheaper one, which favours families with "
        "many settings a little."
    )
    return [said, rule, choice, *bench.notes()]


def measure_reliabilities(bench: BenchmarkResult) -> list[Reliability]:
    """Measure the reliability of every family that states how sure it is."""
    found = (measure_reliability(bench.scores, family) for family in bench.families)
    return [each for each in found if each is not None]


def render_body(bench: BenchmarkResult) -> Markup:
    """Everything between the page's head and its scripts."""
    lines = summary_lines(bench)
    head = tag(
        "header",
        tag("p", "searches replayed on finished runs", class_="kicker"),
        tag("h1", headline(bench)),
        paragraphs(lines[:2]),
    )
    results = (join([tag("h3", _at(cost)), _build_ranking(bench, cost)]) for cost in bench.costs)
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
        section("tables", "Table by table", _by_table(bench), render_charts(draw_charts_by_table(bench))),
        section("reliability", "Reliability", _reliability(bench), render_charts(draw_reliability_charts(bench))),
        section("details", "Details", _tables(bench), collapse("Every setting", _settings(bench))),
    )
    foot = f"Replayed in {duration(bench.seconds)}. All replays are in bench.json."
    return join([head, main, tag("footer", foot)])


def _at(cost: float) -> str:
    return f"At {shares(cost)} full runs, the final run included"


def _build_ranking(bench: BenchmarkResult, cost: float) -> Markup:
    rows = rank_families(bench.scores, cost, bench.reference)
    cells = [
        [
            cell(row.family),
            _interval(row.regret),
            _interval(row.difference, sign="+"),
            cell(format_reference_cost(row), number=True),
            cell(count(row.num_instances), number=True),
        ]
        for row in rows
    ]
    marks = ["picked" if row.family == bench.reference else "" for row in rows]
    heads = ["family", "regret", "difference", "reference cost", "instances"]
    return table(heads, cells, name="sortable", marks=marks)


def format_reference_cost(row: RegretSummary) -> str:
    """The cost of the reference that a row is compared with, in full runs."""
    return NONE if row.reference_cost is None else shares(row.reference_cost)


def _interval(found: Interval | None, sign: str = "") -> Markup:
    if found is None:
        return cell(NONE, sort=0, number=True)
    show = loss if not sign else "{:+.4f}".format
    return cell(f"{show(found.value)} ({show(found.low)} to {show(found.high)})", sort=found.value, number=True)


def _by_table(bench: BenchmarkResult) -> Markup:
    """Mean regret of every family on every table at the last of the costs."""
    cost, rows = bench.costs[-1], []
    found = {
        header.name: {
            row.family: row.regret.value
            for row in rank_families([s for s in bench.scores if s.table == header.name], cost, bench.reference)
        }
        for header in bench.tables
    }
    for family in bench.families:
        values = [found[header.name].get(family) for header in bench.tables]
        if any(value is not None for value in values):
            rows.append([cell(family), *(cell(loss(value), sort=value or 0, number=True) for value in values)])
    heads = ["family", *(header.name for header in bench.tables)]
    return join([tag("p", f"Mean regret at {shares(cost)} full runs."), table(heads, rows, name="sortable")])


def _reliability(bench: BenchmarkResult) -> Markup:
    told = measure_reliabilities(bench)
    if not told:
        return tag("p", "No family states how sure it is.")
    names = [header.name for header in bench.tables]
    rows = [
        [
            cell(each.family),
            cell(percent(each.coverage_best), number=True),
            cell(percent(each.coverage), number=True),
            cell(f"{each.mean_plausible:.1f}", number=True),
            *(cell(percent(each.indistinguishable.get(name)), number=True) for name in names),
        ]
        for each in told
    ]
    heads = ["family", "best in the 90 % set", "best or tied in it", "size of the set", *names]
    note = "The columns of tables show the share of replays whose verdict was that allocations are indistinguishable."
    return join([table(heads, rows), tag("p", note, class_="soft")])


def _tables(bench: BenchmarkResult) -> Markup:
    rows = [
        [
            cell(join([header.name, tag("div", header.description, class_="soft")], "")),
            cell("; ".join(f"{part} {', '.join(map(str, ranks))}" for part, ranks in header.space.ladders)),
            cell(count(header.num_train), number=True),
            cell(count(header.full_examples), number=True),
            cell(f"{header.learning_rate:g}", number=True),
            cell(count(len(header.seeds)), number=True),
        ]
        for header in bench.tables
    ]
    return table(["table", "ranks", "rows", "examples of a run", "learning rate", "seeds"], rows)


def _settings(bench: BenchmarkResult) -> Markup:
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for score in bench.scores:
        found.setdefault((score.family, score.setting), []).append((score.cost, score.regret, score.seconds))
    rows = [
        [cell(family), cell(setting or "default"), *(cell(loss(_mean(of, n)), number=True) for n in range(3))]
        for (family, setting), of in found.items()
    ]
    return table(["family", "setting", "full runs", "regret", "seconds"], rows, name="sortable")


def _mean(values: Sequence[tuple[float, float, float]], column: int) -> float:
    return sum(each[column] for each in values) / len(values)
