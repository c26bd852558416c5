"""The charts of several objectives' gradients draw the notes of the final run."""

from dataclasses import replace

import pytest

from marslora.core.runs import BlockGradient
from marslora.report.figures import objectives
from marslora.report.page import render_page


def note(step, block, cosine, norms=(4.0, 1.0), case="sum"):
    return BlockGradient(
        step=step, block=block, objectives=("text", "image"), norms=norms, cosine=cosine, weights=(1.0, 1.0),
        norm=4.0, alignment=(0.9, 0.1), case=case,
    )  # fmt: skip


NOTES = [
    *(
        note(step, "lower", -0.5 if step < 3 else 0.5, case="conflict" if step < 3 else "imbalance")
        for step in range(4)
    ),
    *(note(step, "upper", 0.2, norms=(3.0, 0.0), case="plain") for step in range(4)),
]


def test_one_objective_has_no_picture(clear):
    assert objectives.draw_charts(clear) == []


def test_lines_are_the_notes(clear):
    cosine, norm = objectives.draw_charts(replace(clear, gradients=NOTES))
    lines = {trace["name"]: trace for trace in cosine.traces}
    assert lines["lower"]["y"] == [-0.5, -0.5, -0.5, 0.5]
    assert lines["upper"]["x"] == [1, 2, 3, 4]
    whole = {trace["name"]: trace["y"] for trace in norm.traces}
    assert whole["text"] == pytest.approx([5.0] * 4)
    assert whole["image"] == pytest.approx([1.0] * 4)


def test_sentences_say_the_numbers(clear):
    cosine, norm = objectives.draw_charts(replace(clear, gradients=NOTES))
    assert "most often in lower: there in 75" in cosine.caption
    assert "conflict (75" in cosine.caption
    assert "imbalance (25" in cosine.caption
    assert "gradient of text was 5 times as long as that of image" in norm.caption


def test_many_steps_and_blocks_are_few_points_and_lines(clear):
    many = [note(step, f"layer {block}", 0.1 * block - 0.5) for step in range(500) for block in range(10)]
    cosine, _ = objectives.draw_charts(replace(clear, gradients=many))
    assert len(cosine.traces) == objectives.MAX_BLOCKS + 1
    assert all(len(trace["x"]) <= objectives.NUM_POINTS for trace in cosine.traces)
    assert "Of 10 blocks" in cosine.caption


def test_the_page_holds_them(clear):
    page = render_page(replace(clear, gradients=NOTES))
    assert "plot-gradients-cosine" in page
    assert "Do the objectives agree?" in page
    assert "plot-gradients-cosine" not in render_page(clear)
