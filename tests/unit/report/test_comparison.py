"""The page of a comparison draws the numbers of its records and survives any names."""

import math

import pytest

from marslora.comparison.summary import summarise_methods
from marslora.core.allocation import Allocation
from marslora.core.comparison import Comparison, MethodRun, MethodSummary
from marslora.core.decision import Interval
from marslora.core.runs import Cost, FinalResult
from marslora.core.spec import TrainingSpec
from marslora.report import comparison as page
from marslora.report.figures.methods import draw_charts
from tests.unit.report.plotly_figures import parse_figure
from tests.unit.report.test_page import HOSTILE, Reader

LOSSES = {"uniform": (0.5, 0.52, 0.54), "moka": (0.4, 0.43, 0.44), "eva": (0.5, 0.53, 0.53)}


def result(loss, flops):
    return FinalResult(
        id="runs/x",
        allocation=Allocation.of(vision=16),
        adapter_folder="runs/x/adapter",
        num_trainable=3000,
        base_validation_loss=2.0,
        base_validation_accuracy=0.1,
        validation_loss=loss + 0.01,
        validation_accuracy=0.8,
        test_loss=loss,
        test_accuracy=0.7,
        examples=(0, 16, 64),
        validation_curve=(2.0, 1.0, loss + 0.01),
        cost=Cost(seconds=3.0, examples=64, flops=flops, peak_bytes=2**30),
    )


def method(name, losses, flops=1e9, **more):
    return MethodSummary(
        name=name,
        recipe="uniform",
        summary="LoRA.",
        source="a paper",
        training=TrainingSpec(part_learning_rates={"projector": 2e-5}),
        allocation=Allocation.of(vision=8, language=8),
        examples=64,
        num_planned=3000,
        runs=tuple(MethodRun(seed=seed, result=result(loss, flops)) for seed, loss in enumerate(losses)),
        **more,
    )


def comparison(losses=LOSSES, extra=(), seeds=(0, 1, 2)):
    methods = [method(name, of, 1e9 * (1 + n)) for n, (name, of) in enumerate(losses.items())]
    return Comparison(
        model="m",
        architecture="Llava",
        equal="parameters",
        seeds=seeds,
        metric="test_loss",
        full_examples=64,
        methods=summarise_methods([*methods, *extra], "test_loss"),
    )


def test_dots_are_means_and_their_lines_the_intervals():
    found = comparison()
    drawn = {chart.name: chart for chart in draw_charts(found)}
    dots = drawn["losses"].traces[1]
    assert dict(zip(dots["y"], dots["x"], strict=True)) == {m.name: m.test_loss.value for m in found.methods}
    widths = dict(zip(dots["y"], dots["error_x"]["array"], strict=True))
    moka = found.methods[1]
    assert widths["moka"] == pytest.approx(moka.test_loss.high - moka.test_loss.value)
    assert len(drawn["losses"].traces[0]["x"]) == 9
    differences = drawn["differences"].traces[0]
    assert set(differences["y"]) == {"moka", "eva"}
    assert "1 of 2 methods end below uniform" in drawn["differences"].caption
    assert sorted(drawn["costs"].traces[0]["x"]) == [1, 2, 3]
    curves = {trace["name"]: trace["y"] for trace in drawn["methods-curves"].traces}
    assert curves["uniform"] == pytest.approx([2.0, 1.0, 0.53])
    for chart in drawn.values():
        assert parse_figure(chart.figure()).data


def test_words_say_which_methods_differ_from_the_reference():
    found = comparison()
    assert page.write_headline(found) == "moka ends with a lower loss than uniform"
    assert "1 of 2 differences from uniform is distinguishable from 0" in " ".join(page.write_summary_lines(found))
    level = {"uniform": (0.5, 0.6, 0.7), "eva": (0.6, 0.5, 0.7)}
    assert page.write_headline(comparison(level)) == "No method ends with a lower loss than uniform"
    once = comparison({"uniform": (0.5,), "eva": (0.4,)}, seeds=(0,))
    assert math.isnan(once.methods[1].difference.low)
    assert page.write_headline(once) == "One seed is too few to tell the methods apart"


def test_failures_are_on_the_page():
    failed = MethodSummary(name="moe", recipe="llava_mole", error="no room for experts")
    half = method("half", (0.5,)).model_copy(
        update={"runs": (MethodRun(seed=0, result=result(0.5, 1e9)), MethodRun(seed=1, error="it diverged"))}
    )
    read = Reader(str(page.render_body(comparison(extra=[failed, half]))))
    assert "no room for experts" in read.text
    assert "seed 1 failed (it diverged)" in read.text


def test_the_page_is_whole_and_names_are_only_text(tmp_path):
    found = comparison({HOSTILE: (0.5, 0.6, 0.7), "eva": (0.4, 0.5, 0.6)})
    read = Reader(str(page.render_body(found)))
    assert not any(name == "img" for name, _ in read.tags)
    assert len(read.ids) == len(set(read.ids))
    assert set(read.figures) == {"plot-losses", "plot-differences", "plot-costs", "plot-methods-curves"}
    text = page.write_page(found, tmp_path / "compare.html").read_text()
    assert "plotly" in text.lower()
    assert "http-equiv" in text


def test_nothing_that_ended_is_a_page_too():
    failed = [MethodSummary(name=name, recipe="uniform", error="no") for name in ("a", "b")]
    found = comparison({}, failed).model_copy(update={"methods": tuple(failed)})
    assert not draw_charts(found)
    assert "left out (no)" in Reader(str(page.render_body(found))).text


def test_a_metric_of_answers_stands_beside_the_loss():
    found = comparison()
    f1 = Interval(value=0.625, low=0.6, high=0.65)
    scored = tuple(each.model_copy(update={"answer_metric": f1}) for each in found.methods)
    metered = found.model_copy(update={"methods": scored, "answer_metric": "f1", "loss_correlation": -0.75})
    told = " ".join(page.write_summary_lines(metered))
    assert "The point of the highest f1 was kept of every run" in told
    assert "over the 9 finished runs its rank correlation with the loss is -0.75" in told
    assert "The point of the highest f1 was kept" in page.render_body(metered)
    table = page.build_methods_table(metered)
    assert "difference in f1" in table and table.count("0.625 ") == 3
    assert "f1" not in page.build_methods_table(found)
    untold = metered.model_copy(update={"loss_correlation": None})
    assert "too few runs differ" in " ".join(page.write_summary_lines(untold))
