"""The page of a benchmark draws the numbers of its record and survives any names."""

import pytest

from marslora.core.allocation import Space
from marslora.replay.benchmark import BenchmarkResult, SkippedSearcher
from marslora.replay.table import TableHeader
from marslora.report import benchmark as page
from marslora.report.figures import benchmark
from tests.unit.replay.test_ranking import score
from tests.unit.report.plotly_figures import parse_figure
from tests.unit.report.test_page import HOSTILE, Reader


def header(name, description="Made up."):
    return TableHeader(
        name=name,
        description=description,
        space=Space.of({"eye": (2, 4), "tongue": (2, 4)}),
        num_train=100,
        full_examples=200,
        batch_size=4,
        learning_rate=1e-3,
        seeds=(0, 1),
        made_by="a test",
    )


def bench(better=0.02, names=("t0", "t1"), family="mars", costs=(1.2, 1.5)):
    instances = [(name, seed, 1.0) for name in names for seed in (0, 1)]
    scores = [
        score("halving", instance, cost, 0.1, f"first_rung={cost}") for instance in instances for cost in (1.4, 2.0)
    ]
    scores += [
        score(family, instance, cost, better, f"budget={cost}", p_best=0.9, covers=True, indistinguishable=True)
        for instance in instances
        for cost in (1.1, 1.3)
    ]
    scores += [score("uniform", instance, 1.0, 0.3) for instance in instances]
    return BenchmarkResult(
        tables=tuple(header(name, description=name) for name in names),
        reference="halving",
        costs=costs,
        scores=tuple(scores),
        skipped=(SkippedSearcher(table="t1", family="paper", setting="", reason="no run"),),
        seconds=3.0,
    )


def test_the_headline_says_who_is_better():
    assert page.write_headline(bench()) == "At 1.5 full runs, mars ends closer to the best allocation than halving"
    assert (
        page.write_headline(bench(better=0.1)) == "At 1.5 full runs, no search is distinguishably better than halving"
    )
    assert page.write_headline(bench(costs=(0.5,))) == "No search costs at most 0.5 full runs"


def test_the_page_is_whole_and_tells_what_was_left_out(tmp_path):
    text = page.write_page(bench(), tmp_path / "bench.html").read_text()
    reader = Reader(text)
    words = reader.text
    assert "paper was left out on t1: no run" in words
    assert "12 replays" not in words and "20 replays" in words and "4 instances" in words
    assert reader.figures and all(parse_figure(figure).data for figure in reader.figures.values())


def test_hostile_names_stay_text(tmp_path):
    text = page.write_page(bench(names=(HOSTILE, "t1"), family=HOSTILE), tmp_path / "bench.html").read_text()
    assert HOSTILE not in text


def test_pictures_hold_the_means():
    (chart,) = benchmark.draw_regret_charts(bench())
    lines = {trace["name"]: trace for trace in chart.traces if trace.get("showlegend", True)}
    assert lines["mars"]["y"] == pytest.approx([benchmark.place_regret(0.02)] * 2)
    assert lines["mars"]["x"] == pytest.approx([benchmark.place_cost(1.1), benchmark.place_cost(1.3)])
    assert {trace["legendgroup"] for trace in chart.traces if trace.get("fill")} == {"mars", "halving"}
    assert [chart.title for chart in benchmark.draw_charts_by_table(bench())] == ["t0", "t1"]
    (costs,) = benchmark.draw_cost_charts(bench())
    assert sorted(costs.traces[0]["x"]) == pytest.approx([1.0, 1.1, 1.3, 1.4, 2.0])
    assert benchmark.draw_reliability_charts(bench())[0].traces[1]["x"] == pytest.approx([0.9])


def test_axes_keep_zero_and_order():
    assert benchmark.place_regret(0.0) < benchmark.place_regret(0.001) < benchmark.place_regret(1.0)
    assert benchmark.place_cost(1.0) < benchmark.place_cost(1.1) < benchmark.place_cost(16.0)
