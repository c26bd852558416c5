from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from marslora import demo
from marslora.comparison.settings import read_demo
from marslora.core.errors import ConfigError
from marslora.core.spec import DataSpec
from marslora.data.splits import load_splits
from marslora.demo import drawing, task_files, tasks
from marslora.demo.drawing import EMPTY, STYLES, draw_scenes, list_things, load_names
from marslora.demo.settings import make_settings
from marslora.settings import StudySettings, make_spec

NOTICES = Path(__file__).parents[3] / "NOTICES"
SIZES = {"num_train": 40, "num_validation": 12, "num_test": 12}


def images(path: Path) -> list[bytes]:
    return [row[0]["bytes"] for row in pq.read_table(path)["images"].to_pylist()]


@pytest.mark.parametrize("name", tasks.TASKS)
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(name, tmp_path):
    first = task_files.write_task(name, tmp_path / "a", **SIZES, seed=3)
    again = task_files.write_task(name, tmp_path / "b", **SIZES, seed=3)
    other = task_files.write_task(name, tmp_path / "c", **SIZES, seed=4)
    for split, path in first.items():
        table = pq.read_table(path)
        assert table.num_rows == SIZES[f"num_{split}"]
        assert table.equals(pq.read_table(again[split]))
        assert not table.equals(pq.read_table(other[split]))


@pytest.mark.parametrize("name", tasks.TASKS)
def test_splits_share_no_picture(name, tmp_path):
    paths = task_files.write_task(name, tmp_path, num_train=300, num_validation=100, num_test=100, seed=0)
    pictures = {split: set(images(path)) for split, path in paths.items()}
    assert not pictures["train"] & pictures["test"]
    assert not pictures["train"] & pictures["validation"]
    assert not pictures["validation"] & pictures["test"]
    assert len(pictures["train"]) == 300


def test_a_split_does_not_depend_on_the_sizes_of_others(tmp_path):
    few = task_files.write_task("both", tmp_path / "a", num_train=10, num_validation=12, num_test=9)
    many = task_files.write_task("both", tmp_path / "b", num_train=40, num_validation=12, num_test=9)
    assert images(few["validation"]) == images(many["validation"])
    assert images(few["test"]) == images(many["test"])


def test_handwriting_of_the_test_split_is_in_no_other(monkeypatch):
    digit = np.array([list_things().index("seven")])
    for split, (low, high) in drawing._DIGIT_SHARES.items():
        others = [share for name, share in drawing._DIGIT_SHARES.items() if name != split]
        assert all(high <= start or end <= low for start, end in others)
        assert len(draw_scenes(20, split, np.random.default_rng(0), things_used=digit)) == 20


@pytest.mark.parametrize("name", tasks.TASKS)
def test_rows_are_read_back_as_examples(name, tmp_path):
    paths = task_files.write_task(name, tmp_path, **SIZES)
    row = pq.read_table(paths["train"]).to_pylist()[0]
    assert [message["role"] for message in row["messages"][:2]] == ["user", "assistant"]
    assert row["messages"][0]["content"][0]["type"] == "image"
    splits = load_splits(DataSpec(**{split: (str(path),) for split, path in paths.items()}))
    assert [len(splits.train), len(splits.validation), len(splits.test)] == list(SIZES.values())
    assert splits.report.num_bad == 0


def test_answers_say_what_was_drawn():
    scene = draw_scenes(200, "train", np.random.default_rng(0))
    talks = task_files.make_conversations(scene, ["list", "count"], ["spanish"], np.random.default_rng(0))
    for cells, turns in zip(scene.cells_NC, talks, strict=True):
        names = ["nothing" if thing == EMPTY else load_names()["spanish"][thing] for thing in cells]
        assert turns[0] == ("list the objects. spanish", ", ".join(names))
        assert turns[1][1] == drawing.DIGITS[int((cells != EMPTY).sum())]


def test_things_stand_where_the_scene_says():
    scene = draw_scenes(300, "train", np.random.default_rng(1))
    cells = scene.images_NHWC.reshape(-1, 2, 24, 2, 24, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4, 24 * 24 * 3)
    is_flat = (cells.reshape(-1, 4, 24 * 24, 3).std(axis=2) == 0).all(axis=-1)
    np.testing.assert_array_equal(is_flat, scene.cells_NC == EMPTY)


@pytest.mark.parametrize("style", STYLES)
def test_a_style_changes_every_picture_and_keeps_its_size(style):
    plain = draw_scenes(20, "train", np.random.default_rng(2)).images_NHWC
    styled = draw_scenes(20, "train", np.random.default_rng(2), style=style).images_NHWC
    assert plain.shape == styled.shape == (20, 48, 48, 3)
    changed = (plain != styled).any(axis=(1, 2, 3))
    assert changed.all() if style != "plain" else not changed.any()


def test_a_search_of_a_task_finds_its_own_learning_rate_and_may_leave_the_tower_alone(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").touch()
    monkeypatch.setattr(task_files, "ensure_task", lambda *_: {"train": tmp_path / "t.parquet"})
    spec = make_spec(StudySettings.parse(make_settings("both", tmp_path)))
    assert spec.learning_rates == (4.2e-4, 8.5e-4, 1.7e-3, 3.4e-3, 6.8e-3)
    assert spec.space.model_dump() == {"vision": [0, 4, 16, 64], "projector": [16], "language": [4, 16, 64]}
    assert read_demo("both", tmp_path)["training"]["learning_rate"] == 1e-3


def test_an_unknown_task_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"`smell`.*vision"):
        task_files.ensure_task("smell", tmp_path)


def test_files_that_are_there_are_kept(tmp_path, monkeypatch):
    paths = task_files.ensure_task("small", tmp_path)
    monkeypatch.setattr(task_files, "write_task", lambda *_, **__: pytest.fail("written again"))
    assert task_files.ensure_task("small", tmp_path) == paths


def test_notices_name_the_licence_of_every_asset():
    text = " ".join(NOTICES.read_text().split())
    for path in (Path(demo.__file__).parent / "assets").iterdir():
        assert path.name in text
    for licence in ("CC BY 4.0", "SIL Open Font License", "Apache"):
        assert licence in text
