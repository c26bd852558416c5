"""Sources are named in one way, and their fingerprint changes when their files do."""

from __future__ import annotations

import os

import pytest

from marslora.core.data_files import data_fingerprint, describe_files, has_rows_in_memory, parse_source
from marslora.core.errors import ConfigError
from marslora.core.options import OptionTable
from marslora.core.spec import DataSpec


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jsonl", "b.jsonl", "dataset_info.json", "x#y.jsonl"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_a_source_may_name_an_entry_of_a_registry(folder):
    assert parse_source(f"{folder}#talk") == (folder, "talk")
    assert parse_source(f"{folder}/dataset_info.json:talk") == (folder / "dataset_info.json", "talk")


def test_a_path_that_exists_is_taken_as_it_is(folder):
    assert parse_source(str(folder / "x#y.jsonl")) == (folder / "x#y.jsonl", None)
    assert parse_source("gone.jsonl")[1] is None


def edit(path):
    path.write_text("other text")


def touch(path):
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [edit, touch, lambda path: path.unlink()])
@pytest.mark.parametrize("source", ["{}/a.jsonl", "{}", "{}#talk", "{}/dataset_info.json", "{}/dataset_info.json:talk"])
def test_a_change_of_a_file_is_seen(folder, source, change):
    data = DataSpec(train=("memory:rows",), test=(source.format(folder),))
    before = data_fingerprint(data)
    assert data_fingerprint(data) == before
    change(folder / "a.jsonl")
    assert data_fingerprint(data) != before


def test_a_change_of_a_picture_is_seen(folder):
    before = describe_files([folder / "b.jsonl"])
    assert describe_files([folder / "b.jsonl"]) == before
    edit(folder / "b.jsonl")
    assert describe_files([folder / "b.jsonl"]) != before


def test_other_files_do_not_matter(folder):
    data = DataSpec(train=(str(folder / "a.jsonl"),))
    before = data_fingerprint(data)
    edit(folder / "b.jsonl")
    assert data_fingerprint(data) == before


def test_rows_in_memory_are_known_by_their_name():
    assert has_rows_in_memory(DataSpec(train=("a.jsonl",), validation=("memory:rows",)))
    assert not has_rows_in_memory(DataSpec(train=("a.jsonl",)))


@pytest.mark.parametrize("name", ["", "  ", ["rows.jsonl", ""]])
@pytest.mark.parametrize("field", ["train", "validation", "test"])
def test_an_empty_name_is_not_the_current_folder(field, name):
    table = OptionTable.of(DataSpec)
    with pytest.raises(ConfigError, match=f"{field}.* (must not be empty|is missing)"):
        table.parse(DataSpec, {"train": "rows.jsonl", field: name}, "the settings", "flag", [field])
