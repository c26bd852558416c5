"""Workers read no rows that their study has read before, unless something has changed; memory does not grow."""

from __future__ import annotations

import tracemalloc

import pytest
import torch

from marslora.core.spec import DataSpec
from marslora.data import _blobs, rows, splits
from marslora.data.rows import load_encoded_splits
from marslora.data.splits import load_splits
from tests.helpers import tiny_processors as tiny
from tests.unit.data.conftest import picture, row, write_lines


@pytest.fixture
def study(folder):
    """A data set of ten pictures, one bad row, and where its rows are cached."""
    lines = [row(f"{index}?", f"it is {index}", f"{index}.png") for index in range(10)]
    lines += [row("bad", "row", "missing.png"), row("long?", "word " * 60)]
    source = write_lines(folder / "rows.jsonl", lines)
    data = DataSpec(train=(source,), validation_share=0.3, max_length=80, max_bad_share=0.5)
    return data, tiny.llava_processor(), str(folder / "cache")


@pytest.fixture
def reads(monkeypatch):
    """One entry for every time that rows are read, as in a new process: nothing is remembered in memory."""
    found = []

    def load(spec):
        found.append(spec)
        splits._cache.clear()
        return load_splits(spec)

    monkeypatch.setattr(rows, "load_splits", load)
    return found


def equal(one, other):
    a, b = (each.batch(range(len(each))) for each in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_worker_reads_nothing_and_has_the_same_rows(study, reads):
    first = load_encoded_splits(*study)
    again = load_encoded_splits(*study)
    worker = load_encoded_splits(*study, splits=("train", "validation"))
    assert len(reads) == 1
    assert again.report == first.report and first.report.num_bad == 1
    for mine in (again, worker):
        assert equal(mine.train, first.train) and equal(mine.validation, first.validation)
        assert mine.train.skipped == first.train.skipped and list(mine.train.rows) == list(first.train.rows)
    assert len(first.train.skipped) + len(first.validation.skipped) == 1


def test_a_split_that_was_not_encoded_is_read(study, reads):
    load_encoded_splits(*study, splits=("train",))
    both = load_encoded_splits(*study, splits=("train", "validation"))
    assert len(reads) == 2 and len(both.validation)
    load_encoded_splits(*study, splits=("train",))
    assert len(reads) == 2


@pytest.mark.parametrize("change", ["rows", "picture", "limit", "processor", "cache"])
def test_what_has_changed_is_read_again(study, reads, folder, change):
    data, processor, cache = study
    load_encoded_splits(data, processor, cache)
    if change == "rows":
        write_lines(folder / "rows.jsonl", [row(f"{index}?", "other", f"{index}.png") for index in range(9)])
    elif change == "picture":
        picture(99, 56, 56).save(folder / "3.png")
    elif change == "limit":
        data = data.model_copy(update={"max_length": 70})
    elif change == "processor":
        processor.chat_template = "{{ bos_token }}" + processor.chat_template
    else:
        for file in (folder / "cache").glob("rows-*/*input_ids*"):
            file.write_bytes(b"")
    found = load_encoded_splits(data, processor, cache)
    assert len(reads) == 2
    fresh = load_encoded_splits(data, processor, cache + "-fresh")
    assert equal(found.train, fresh.train) and found.report == fresh.report


def test_a_row_takes_a_tenth_of_a_kilobyte_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(_blobs, "_IN_MEMORY_BYTES", 1 << 16)
    lines = [row(f"What is {index}? " + "word " * 40, f"It is {index}.") for index in range(1200)]
    source = write_lines(tmp_path / "rows.jsonl", lines)
    load_splits(DataSpec(train=(source,), validation_share=0.5))
    splits._cache.clear()
    tracemalloc.start()
    found = load_splits(DataSpec(train=(source,), max_validation=400, seed=1))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.train) == 1080
    assert kept / 1200 < 150 and peak / 1200 < 600, (kept / 1200, peak / 1200)
    assert [example.row for example in found.train] == sorted(example.row for example in found.train)
