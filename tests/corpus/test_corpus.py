"""Rows and files as people have them: each is read as it is meant, said to be changed, or refused by name.

`rows.jsonl` holds the rows: `shown` is what the model is to see (texts, and names of pictures and sounds) in order,
`not_learned` the turns that are read only, `notes` what is said, `refused` how the reason begins. `files` makes files.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from marslora.core.spec import DataSpec
from marslora.data._media_cache import MediaCache
from marslora.data.check import check_data
from marslora.data.encode import encode
from marslora.data.splits import BadRow, load_splits, read_example
from tests.corpus import files
from tests.helpers import tiny_processors as tiny
from tests.unit.data.conftest import write_lines

CASES = [json.loads(line) for line in (Path(__file__).parent / "rows.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    files.write_media(folder)
    return folder


def list_shown(example):
    """Texts and the names of pictures and sounds, in the order in which the model sees them."""
    sources = {"image": iter(example.images), "audio": iter(example.sounds), "video": iter(example.videos)}
    for message in example.messages:
        for part in message["content"]:
            if part["type"] == "text":
                yield part["text"]
            else:
                yield getattr(next(sources[part["type"]]).source, "name", part["type"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_row_is_read_as_it_is_meant_or_refused_by_name(case, media):
    example = read_example(case["row"], MediaCache(media), "corpus", 1)
    if isinstance(example, BadRow):
        assert " ".join(example.reason.replace(f"{media}/", "").split()).startswith(case.get("refused", "to be read"))
        return
    assert "refused" not in case
    assert list(list_shown(example)) == case["shown"]
    assert [message["role"] for message in example.messages] == case["roles"]
    learned = [message.get("learn", True) for message in example.messages]
    assert [turn for turn, is_learned in enumerate(learned) if not is_learned] == case.get("not_learned", [])
    assert list(example.notes) == case.get("notes", [])


def test_what_the_check_passes_the_search_passes(media):
    source = write_lines(media / "rows.jsonl", [case["row"] for case in CASES])
    spec = DataSpec(train=(source,), validation=(source,), max_bad_share=1.0)
    report, splits = check_data([source]), load_splits(spec)
    assert report.num_bad == sum("refused" in case for case in CASES)
    assert [bad.row for bad in report.bad][: len(splits.report.bad)] == [bad.row for bad in splits.report.bad][:20]
    assert len(splits.train) == report.num_rows - report.num_bad


def test_what_the_check_passes_with_a_model_is_encoded(media):
    seen = [case["row"] for case in CASES if "refused" not in case and "audio" not in json.dumps(case["row"])]
    source = write_lines(media / "seen.jsonl", seen)
    splits = load_splits(DataSpec(train=(source,), validation=(source,), max_bad_share=1.0))
    encoded = encode(splits.train, tiny.llava_processor(), max_bad_share=1.0)
    report = check_data([source], processor=tiny.llava_processor)
    assert [bad.row for bad in report.bad] == [bad.row for bad in encoded.skipped]
    assert len(encoded) > 60 and encoded.notes == {}


def assert_right(report, right):
    reasons = [bad.reason for bad in report.bad]
    if right.startswith("!"):
        assert any(right[2:] in reason for reason in reasons), (reasons, report.notes)
    else:
        assert reasons == []
        assert [note[: len(right)] for note in report.notes] == ([right] if right else [])


@pytest.mark.parametrize("name", files.PICTURES)
def test_a_picture_file_is_right_said_or_refused(name, tmp_path):
    make, right = files.PICTURES[name]
    (tmp_path / name).write_bytes(make())
    assert_right(check_data([write_lines(tmp_path / "rows.jsonl", [{"image": name, "caption": "x"}])]), right)
    if not right.startswith("!"):
        shown = np.asarray(MediaCache(tmp_path).get_picture(name).open())
        assert shown.shape[2] == 3 and np.ptp(shown) > 100


@pytest.mark.parametrize("name", files.SOUNDS)
def test_a_sound_file_is_right_said_or_refused(name, tmp_path):
    make, right = files.SOUNDS[name]
    (tmp_path / name).write_bytes(make())
    assert_right(check_data([write_lines(tmp_path / "rows.jsonl", [{"audio": name, "text": "x"}])]), right)
    if not right.startswith("!"):
        samples = MediaCache(tmp_path).get_sound(name).open(8000)
        assert 0.4 < np.abs(samples).max() < 0.6


@pytest.mark.parametrize("name", files.DATA)
def test_a_file_of_rows_is_read_or_refused(name, tmp_path):
    make, right = files.DATA[name]
    (tmp_path / name).write_bytes(make())
    report = check_data([str(tmp_path / name)])
    assert_right(report, right)
    assert right.startswith("!") or report.num_rows == 3


def test_the_page_lists_the_whole_corpus():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    names = [case["name"].partition(": ")[2].replace("|", "\\|") for case in CASES]
    missing = [name for name in names if not any(f"| {mark}{name}{mark[::-1]} |" in page for mark in ("", "`` "))]
    missing += [name for name in (*files.PICTURES, *files.SOUNDS, *files.DATA) if f"| `{name}` |" not in page]
    assert not missing, "run python scripts/data_page.py"


def test_the_corpus_is_large_enough():
    assert len(CASES) >= 150 and len(files.PICTURES) + len(files.SOUNDS) + len(files.DATA) >= 60
