"""The figures draw the numbers of the records, and their sentences say them."""

import math
from dataclasses import replace

import pytest

from marslora.core.allocation import Allocation
from marslora.core.decision import Interval
from marslora.laws.convergence import predict
from marslora.report.figures import allocations, chances, convergence, costs, curves, final, fits, rates
from marslora.report.figures._map import find_balanced_line, find_colour_range
from marslora.report.figures._style import choose_round_ticks, make_json_safe, make_log_axis, pick_ordered_colours
from tests.unit.report import example_studies
from tests.unit.report.simulated_runs import time_to_learn


def traces_of(charts, name):
    return next(chart for chart in charts if chart.name == name).traces


def test_every_run_is_one_curve_with_its_own_losses(data):
    traces = [t for chart in curves.draw_charts(data) for t in chart.traces]
    drawn = [t for t in traces if t["mode"] == "lines+markers" and t["x"] != [None]]
    assert sorted(tuple(t["y"]) for t in drawn) == sorted(run.validation_loss for run in data.runs)


def test_solo_runs_are_with_their_part(clear):
    groups = curves.group_runs(clear)
    assert {name: len(runs) for name, runs in groups.items() if runs} == {"vision": 8, "language": 8, curves.JOINT: 6}


def test_convergence_is_marked_on_the_curve(clear):
    law = clear.convergence_law("language")
    marks = [t for t in traces_of(curves.draw_charts(clear), "curves-language") if t["mode"] == "markers"]
    drawn = {(t["name"] != "converged", x) for t in marks for x in t["x"]}
    assert drawn == {(point.censored, point.measured) for point in law.points}
    arrow = next(t for t in marks if t["name"] != "converged")
    assert arrow["marker"]["symbol"] == "triangle-right"
    low = min(v for run in clear.runs for v in run.validation_loss)
    assert all(low < y < 2.2 for t in marks for y in t["y"])


def test_a_mark_lies_between_the_points_around_it(clear):
    run = clear.runs[3]
    here = (run.examples[4] * run.examples[5]) ** 0.5
    between = sorted(run.validation_loss[4:6])
    assert between[0] < curves.interpolate_loss(run, here, 8.0) < between[1]


def test_law_points_and_curve_equal_the_law(data):
    for index, part in enumerate(p.name for p in data.info.parts if data.convergence_law(p.name)):
        law = data.convergence_law(part)
        traces = traces_of(convergence.draw_charts(data), f"law-{index}")
        drawn = sorted((x, y) for t in traces if t["mode"] == "markers" for x, y in zip(t["x"], t["y"], strict=True))
        assert drawn == sorted((point.inputs["rank"], point.measured) for point in law.points)
        lines = [t for t in traces if t["mode"] == "lines"]
        assert bool(lines) == (law.status != "failed")
        for line, size in zip(lines, (512, 2048), strict=False):
            assert line["y"][0] == pytest.approx(predict(law, line["x"][0], size))


def test_the_band_holds_the_curve(clear):
    traces = traces_of(convergence.draw_charts(clear), "law-0")
    band, line = traces[0], traces[1]
    half = len(line["y"])
    for high, value, low in zip(band["y"][:half], line["y"], reversed(band["y"][half:]), strict=True):
        assert low <= value <= high


def test_a_failed_law_says_so_below_its_points():
    caption = convergence.draw_charts(example_studies.make_example("failed"))[0].caption
    assert caption.startswith("No law could be fitted: only 1 of 8 runs converged")


def test_the_map_has_every_cell_and_the_dropped_ones_apart(clear):
    traces = traces_of(allocations.draw_charts(clear), "allocations")
    heats = [t for t in traces if t["type"] == "heatmap"]
    drawn = {}
    for heat, dropped in zip(heats, (False, True), strict=True):
        for row, line in enumerate(heat["z"]):
            for column, value in enumerate(line):
                if value is not None:
                    drawn[example_studies.LADDER[row], example_studies.LADDER[column], dropped] = value
    assert drawn == {
        (c.allocation["vision"], c.allocation["language"], c.status == "dropped"): c.predicted_loss.value
        for c in clear.decision.candidates
    }


def test_the_map_outlines_the_choice_and_the_plausible_set(clear):
    traces = traces_of(allocations.draw_charts(clear), "allocations")
    chosen = next(t for t in traces if t.get("name") == "chosen")
    column, row = (example_studies.LADDER.index(clear.decision.chosen[part]) for part in ("language", "vision"))
    xs, ys = ([v for v in chosen[axis] if v is not None] for axis in "xy")
    assert len(xs) == 8
    assert (min(xs) + max(xs)) / 2 == pytest.approx(column)
    assert (min(ys) + max(ys)) / 2 == pytest.approx(row)
    outline = next(t for t in traces if t.get("name") == "hold 90 % of P(best)")
    assert outline["line"]["dash"] == "dash"


def test_numbers_in_the_cells_are_expected_and_observed(clear):
    texts = [a["text"] for a in allocations.draw_charts(clear)[0].layout["annotations"]]
    assert len(texts) == 16
    assert sum("seen" in text for text in texts) == sum(c.observed_loss is not None for c in clear.decision.candidates)


def test_on_the_balanced_line_the_times_are_equal(clear):
    cells = {
        (
            example_studies.LADDER.index(c.allocation["language"]),
            example_studies.LADDER.index(c.allocation["vision"]),
        ): c
        for c in clear.decision.candidates
    }
    line = find_balanced_line(cells, "language", "vision", example_studies.LADDER, example_studies.LADDER)
    assert len(line) > 10

    def log_time(part, place):
        low = min(int(place), 2)
        ends = [math.log(time_to_learn(part, example_studies.LADDER[i], 2048)) for i in (low, low + 1)]
        return ends[0] + (place - low) * (ends[1] - ends[0])

    for column, row in line:
        assert log_time("language", column) == pytest.approx(log_time("vision", row), abs=1e-9)


def test_training_losses_are_thin_lines_and_accuracies_are_shown_on_hover(clear):
    run = next(run for run in clear.runs if run.member.allocation.active == ("vision",))
    seen = ((8, 2.5), (32, 1.5))
    data = replace(clear, train_losses={run.member.id: seen}, accuracies={run.member.id: ((run.examples[-1], 0.75),)})
    chart = next(chart for chart in curves.draw_charts(data) if chart.name == "curves-vision")
    (thin,) = [
        trace
        for trace in chart.traces
        if trace["x"] and trace["mode"] == "lines" and trace["x"][0] and trace["line"]["width"] < 1
    ]
    assert (thin["x"], thin["y"], thin["showlegend"]) == ([8.0, 32.0], [2.5, 1.5], False)
    legend = {trace["name"]: trace for trace in chart.traces if trace["x"] == [None]}
    assert (
        legend["training loss"]["line"]["width"] == thin["line"]["width"] < legend["validation loss"]["line"]["width"]
    )
    assert legend["validation loss"]["mode"] == "lines+markers"
    assert any("75" in text for trace in chart.traces for text in trace.get("customdata", ()))
    assert not any(t["name"] == "training loss" for c in curves.draw_charts(clear) for t in c.traces)


def test_the_training_loss_of_the_final_run_is_drawn(clear):
    assert not any(trace["name"] == "training loss" for trace in final.draw_charts(clear)[0].traces)
    trained = clear.final.model_copy(update={"train_examples": (64, 128), "train_curve": (1.5, 1.2)})
    chart = final.draw_charts(replace(clear, final=trained))[0]
    (thin,) = [trace for trace in chart.traces if trace["name"] == "training loss"]
    assert (thin["x"], thin["y"], thin["line"]["width"]) == ([64.0, 128.0], [1.5, 1.2], 1)
    assert "The thin line is the training loss" in chart.caption


def test_no_balanced_line_where_times_are_unknown():
    names = [
        t.get("name") for t in traces_of(allocations.draw_charts(example_studies.make_example("failed")), "allocations")
    ]
    assert "balanced line" not in names


def test_noise_looks_flat(clear):
    flat = {(i, 0): c.model_copy(update={"predicted_loss": Interval(value=1.0, low=0.5, high=1.5)})
            for i, c in enumerate(clear.decision.candidates[:3])}  # fmt: skip
    assert find_colour_range(flat, dict.fromkeys(flat, 1.0)) == (1.0, 2.0)


def test_the_map_shows_each_allocation_at_its_best_rate():
    data = example_studies.make_example("rates")
    chart = allocations.draw_charts(data)[0]
    lowest = {}
    for each in data.decision.candidates:
        cell = each.allocation["vision"], each.allocation["language"]
        lowest[cell] = min(lowest.get(cell, math.inf), each.predicted_loss.value)
    drawn = [v for t in chart.traces if t["type"] == "heatmap" for line in t["z"] for v in line if v is not None]
    assert sorted(drawn) == sorted(lowest.values()) and len(drawn) == 12
    small = [note["text"] for note in chart.layout["annotations"]]
    assert all("at 0.00" in text for text in small)
    assert any("0.656" in text and "at 0.00085" in text for text in small)
    assert "at its best learning rate" in chart.caption


def test_learning_rates_have_a_line_for_each_rank_of_the_part_that_matters_most(clear):
    data = example_studies.make_example("rates")
    (chart,) = rates.draw_charts(data)
    *lines, star = chart.traces
    assert [line["name"] for line in lines] == ["language rank 4", "language rank 16", "language rank 64"]
    for line, rank in zip(lines, (4, 16, 64), strict=True):
        for x, y, rate in zip(line["x"], line["y"], example_studies.RATES, strict=True):
            best = min(
                each.predicted_loss.value
                for each in data.decision.candidates
                if each.allocation["language"] == rank and each.learning_rate == rate
            )
            assert y == best and x == pytest.approx(rate, rel=0.05)
        assert line["error_y"]["array"] == pytest.approx([0.03] * 5)
    assert (star["name"], star["y"]) == ("chosen", [data.chosen.predicted_loss.value])
    assert "The best rates: 0.0034 at rank 4, 0.0017 at rank 16, 0.00085 at rank 64." in chart.caption
    assert rates.draw_charts(clear) == []


def test_observed_losses_of_rates_are_said_to_be_observed():
    data = example_studies.make_example("rates")
    bare = tuple(
        each.model_copy(update={"predicted_loss": None, "observed_loss": each.predicted_loss.value})
        for each in data.decision.candidates
    )
    chart = rates.draw_charts(replace(data, decision=data.decision.model_copy(update={"candidates": bare})))[0]
    assert "lowest observed" in chart.caption and chart.traces[0]["error_y"]["array"] == [None] * 5


def test_curves_of_settings_are_named_with_their_rate():
    chart = next(c for c in curves.draw_charts(example_studies.make_example("rates")) if c.name.startswith("curves-p"))
    assert {trace["name"].rpartition("learning rate ")[2] for trace in chart.traces} == {"0.00085", "0.0017", "0.0034"}


def test_more_than_two_parts_are_ranked():
    data = example_studies.make_example("three_parts")
    dots = traces_of(allocations.draw_charts(data), "allocations")[0]
    assert dots["x"] == sorted(dots["x"], reverse=True)
    assert len(dots["x"]) == allocations.MANY
    assert dots["marker"]["symbol"].count("star") == 1


def test_one_part_is_a_line():
    data = example_studies.make_example("one_part")
    dots = traces_of(allocations.draw_charts(data), "allocations")[0]
    ordered = sorted(data.decision.candidates, key=lambda c: c.allocation["language"])
    assert dots["y"] == [c.predicted_loss.value for c in ordered]
    assert dots["x"] == [0, 1, 2, 3]


def test_a_grid_without_predictions_shows_what_was_observed(clear):
    bare = tuple(
        c.model_copy(
            update={"predicted_loss": None, "p_best": None, "observed_loss": 1.0 + i, "observed_examples": 4096}
        )
        for i, c in enumerate(clear.decision.candidates)
    )
    data = replace(clear, decision=clear.decision.model_copy(update={"candidates": bare, "laws": ()}))
    heats = [t for t in allocations.draw_charts(data)[0].traces if t["type"] == "heatmap"]
    assert sorted(v for heat in heats for line in heat["z"] for v in line if v is not None) == [
        1.0 + i for i in range(16)
    ]
    assert chances.draw_charts(data) == []
    chart = allocations.draw_charts(data)[0]
    assert chart.caption.startswith("Each cell is an allocation; its number is the lowest validation loss observed.")
    assert "probability" not in chart.caption
    assert not any("seen" in note["text"] for note in chart.layout["annotations"])


def test_chances_are_the_probabilities_best_first(clear):
    (chart,) = chances.draw_charts(clear)
    bars = chart.traces[0]["x"]
    assert bars == sorted(bars)
    assert bars[-1] == max(c.p_best for c in clear.decision.candidates)
    assert len(bars) == chances.MANY


def test_the_final_curve_continues_the_calibration_run(clear):
    traces = {t["name"]: t for t in final.draw_charts(clear)[0].traces}
    assert traces["final run"]["y"] == list(clear.final.validation_curve)
    assert traces["before training"]["y"] == [2.1, 2.1]
    continued = final.find_continued_run(clear)
    assert continued.member.allocation == clear.decision.chosen
    assert traces["calibration, continued"]["y"] == list(continued.validation_loss)
    assert "uniform rank" in traces
    assert len(set(traces["final run"]["marker"]["size"])) == 1


def test_the_point_that_was_kept_is_the_large_one(clear):
    kept = clear.final.model_copy(update={"kept_examples": clear.final.examples[-2]})
    chart = final.draw_charts(replace(clear, final=kept))[0]
    sizes = next(t for t in chart.traces if t["name"] == "final run")["marker"]["size"]
    assert sizes.index(max(sizes)) == len(sizes) - 2
    assert "saved at the lowest point" in chart.caption
    assert "2.100 to 0.655" in final.draw_charts(clear)[0].caption
    assert final.draw_charts(example_studies.make_example("no_final")) == []


def test_costs_add_up_to_the_total_and_the_grid(clear):
    runs, seconds = costs.draw_charts(clear)
    grid, total, last, first = runs.traces[0]["x"]
    assert (grid, total) == (16.0, pytest.approx(first + last))
    assert first == clear.decision.calibration_full_runs
    assert last == pytest.approx(1 - 256 / clear.full_work)
    grid, total, last, first = seconds.traces[0]["x"]  # drawn in minutes, because the longest takes several
    assert total == pytest.approx((21.5 + 34.0) / 60)
    assert grid == pytest.approx(16 * 34.0 * 4096 / 3840 / 60)
    assert seconds.layout["xaxis"]["title"]["text"] == "minutes of wall time"


def test_times_that_nobody_took_are_left_out(clear):
    final_run = clear.final.model_copy(update={"cost": clear.final.cost.model_copy(update={"seconds": 0.0})})
    assert [p.name for p in costs.draw_charts(replace(clear, final=final_run))] == ["cost-runs"]


def test_the_performance_law_is_drawn_against_its_points(clear):
    (chart,) = fits.draw_charts(clear)
    law = clear.decision.laws[-1]
    assert chart.traces[1]["x"] == [point.measured for point in law.points]
    assert chart.traces[1]["y"] == [point.predicted for point in law.points]


def test_what_is_no_number_is_null():
    assert make_json_safe({"a": (1.0, float("nan"), float("inf")), "b": "nan"}) == {"a": [1.0, None, None], "b": "nan"}


@pytest.mark.parametrize(("low", "high"), [(0.6, 2.1), (16, 4096), (1, 64), (7.0, 7.0)])
def test_ticks_lie_within_the_axis(low, high):
    ticks = choose_round_ticks(low, high)
    assert all(0.97 * low <= tick <= 1.03 * high for tick in ticks)
    if high > 2 * low:
        assert 3 <= len(ticks) <= 9
    axis = make_log_axis("x", [low, high])
    assert 10 ** axis["range"][0] < low <= high < 10 ** axis["range"][1]


def test_colours_of_ordered_things_differ():
    assert [len(set(pick_ordered_colours(number))) for number in (1, 2, 3, 4, 5)] == [1, 2, 3, 4, 5]


def test_a_run_of_several_parts_goes_to_the_joint_panel(clear):
    joint = curves.group_runs(clear)[curves.JOINT]
    assert all(len(run.member.allocation.active) == 3 for run in joint)
    assert Allocation.of(vision=4, projector=16, language=16) in [run.member.allocation for run in joint]
