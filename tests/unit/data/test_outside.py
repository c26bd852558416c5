"""Rows read files of their own folder alone, unless that is allowed."""

import json
import os

import pytest
from PIL import Image

from marslora.core.spec import DataSpec
from marslora.data.check import check_data
from marslora.data.splits import load_splits, register_rows
from tests.unit.data.conftest import write_lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of rows with a picture, and another picture beside the folder."""
    made = tmp_path / "data"
    made.mkdir()
    for path in (made / "inside.png", tmp_path / "outside.png", tmp_path / "data-2.png"):
        Image.new("RGB", (8, 8)).save(path)
    (made / "link.png").symlink_to(tmp_path / "outside.png")
    (made / "way").symlink_to(tmp_path)
    (made / "near.png").symlink_to("inside.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    return made


def check(folder, name, **options):
    row = {"image": name, "caption": "x"}
    return [bad.reason for bad in check_data([write_lines(folder / "rows.jsonl", [row])], **options).bad]


@pytest.mark.parametrize(
    "name",
    (
        *("{there}", "file://{there}", "../outside.png", "x/../../outside.png", "~/outside.png", "link.png"),
        *("way/outside.png", "../data-2.png", "/etc/passwd", "file:///etc/passwd", "/dev/zero", "/proc/self/environ"),
    ),
)
def test_a_path_that_leaves_the_folder_is_refused_unless_that_is_allowed(folder, name):
    name = name.format(there=folder.parent / "outside.png")
    (folder / "x").mkdir()
    (reason,) = check(folder, name)
    assert f"is outside the folder `{folder}`" in reason and "(--allow-outside)" in reason
    assert "outside" not in " ".join(check(folder, name, allow_outside=True)).replace("outside.png", "")
    (said,) = load_splits(data(folder)).report.bad if name else ()
    assert said.reason == reason


def data(folder, **more):
    good = write_lines(folder / "good.jsonl", [{"image": "inside.png", "caption": str(n)} for n in range(4)])
    return DataSpec(train=(good, str(folder / "rows.jsonl")), validation=(good,), max_bad_share=1.0, **more)


@pytest.mark.parametrize("name", ["inside.png", "./inside.png", "x/../inside.png", "near.png", "{there}"])
def test_a_path_within_the_folder_is_read_however_it_is_written(folder, name):
    (folder / "x").mkdir()
    assert check(folder, name.format(there=folder / "inside.png")) == []


def test_the_folder_may_be_named_or_reached_by_a_link(folder):
    assert check(folder, str(folder.parent / "outside.png"), image_folder=str(folder.parent)) == []
    os.symlink(folder, folder.parent / "same")
    assert check_data([str(folder.parent / "same" / "rows.jsonl")], image_folder=str(folder.parent / "same")).num_bad
    write_lines(folder / "rows.jsonl", [{"image": "inside.png", "caption": "x"}])
    assert check_data([str(folder.parent / "same" / "rows.jsonl")]).num_bad == 0


def test_rows_that_the_program_made_name_what_they_like(folder):
    rows = [{"image": str(folder.parent / "outside.png"), "caption": str(n)} for n in range(4)]
    assert load_splits(DataSpec(train=(register_rows("own", rows),))).report.num_bad == 0


def test_a_registry_names_files_of_its_folder(folder):
    write_lines(folder.parent / "rows.jsonl", [{"instruction": "a", "output": "b"}])
    (folder / "dataset_info.json").write_text(json.dumps({"far": {"file_name": "../rows.jsonl"}}))
    with pytest.raises(ValueError, match=r"the file of `far`, `../rows.jsonl`, is outside its folder"):
        check_data([f"{folder}#far"])
    assert check_data([f"{folder}#far"], allow_outside=True).num_bad == 0
