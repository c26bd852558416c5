"""Archives in WebDataset's layout: what is one row, where its media go, and what --fix writes."""

from __future__ import annotations

import io
import json

import pytest

from marslora.core.spec import DataSpec
from marslora.data import repair
from marslora.data._readers import find_files
from marslora.data.check import check_data, resolve_files
from marslora.data.splits import load_splits
from tests.corpus.files import archive
from tests.unit.data.conftest import picture

TURNS = [{"role": "user", "content": "<image>what <image>?"}, {"role": "assistant", "content": "red"}]


def png(seed):
    buffer = io.BytesIO()
    picture(seed, 20, 20).save(buffer, "PNG")
    return buffer.getvalue()


def write(tmp_path, members, name="rows.tar"):
    (tmp_path / name).write_bytes(archive(members))
    return str(tmp_path / name)


def read(source):
    return load_splits(DataSpec(train=(source,), validation=(source,))).train


def shown(example):
    return [image.open().tobytes() for image in example.images]


FORMS = {
    "in the order of the archive": {"7.json": {"messages": TURNS}, "7.a.png": 1, "7.b.png": 2},
    "named in a column": {"7.json": {"messages": TURNS, "images": ["7.b.png", "7.a.png"]}, "7.a.png": 2, "7.b.png": 1},
    "named by parts": {
        "7.json": {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": "7.b.png"}, {"type": "image", "image": "7.a.png"}],
                },
                TURNS[1],
            ]
        },
        "7.a.png": 2,
        "7.b.png": 1,
    },
    "columns in files of their own": {"7.messages.json": TURNS, "7.images.json": ["7.a.png", "7.b.png"], "7.a.png": 1}
    | {"7.b.png": 2},
}


def make(members):
    return {name: png(value) if name.endswith("png") else json.dumps(value).encode() for name, value in members.items()}


@pytest.mark.parametrize("form", FORMS)
def test_pictures_go_where_the_row_names_them(tmp_path, form):
    source = write(tmp_path, {**make(FORMS[form]), "8.png": png(3), "8.txt": b"green"})
    first, second = read(source)
    assert shown(first) == [picture(seed, 20, 20).tobytes() for seed in (1, 2)]
    assert shown(second) == [picture(3, 20, 20).tobytes()]
    assert second.messages[1]["content"][0]["text"] == "green" and (first.row, second.row) == (1, 2)


def test_a_question_and_its_answer_may_be_files(tmp_path):
    members = {"a/7.jpg": png(1), "a/7.question.txt": b"what?", "a/7.answer.txt": b"red", "a/7.cls": b"3"}
    (example,) = read(write(tmp_path, members))
    assert [part.get("text") for part in example.messages[0]["content"]] == [None, "what?"]
    assert example.notes == ("`cls`: not read",)


def test_names_are_told_apart_by_their_folders(tmp_path):
    members = {f"{folder}/7.{kind}": b"red" if kind == "txt" else png(1) for folder in "ab" for kind in ("png", "txt")}
    assert len(read(write(tmp_path, members))) == 2


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"7.json": b"{"}, "`7.json` cannot be read"),
        ({"7.json": b"[1]"}, "`7.json` must hold a JSON object"),
        ({"7.txt": b"\xff\xfe"}, "`7.txt` cannot be read"),
        (make({"7.json": {"messages": TURNS, "images": ["7.a.png"]}, "7.a.png": 1, "7.b.png": 2}), "not `7.b.png`"),
        (make({"7.json": {"messages": TURNS, "images": ["x.png", "y.png"]}, "7.a.png": 1}), "`images` must name files"),
        ({"7.png": b"none", "7.txt": b"red"}, "is not a picture"),
    ],
)
def test_a_sample_that_cannot_be_read_is_one_bad_row(tmp_path, members, reason):
    report = check_data([write(tmp_path, {**members, "8.png": png(3), "8.txt": b"green"})])
    (bad,) = report.bad
    assert report.num_rows == 2 and bad.row == 1 and reason in bad.reason


def test_a_folder_of_archives_is_read_by_split(tmp_path):
    for name in ("train-00.tar", "train-01.tar", "test-00.tar"):
        write(tmp_path, {"8.png": png(3), "8.txt": name.encode()}, name)
    assert [file.place[-12:] for file in find_files(str(tmp_path), "train")] == ["train-00.tar", "train-01.tar"]


def test_fix_writes_the_good_rows_with_their_pictures(tmp_path):
    source = write(tmp_path, {**make(FORMS["named in a column"]), "8.png": b"none", "8.txt": b"red"})
    files = resolve_files([source])
    report = check_data([source])
    repair.write_repaired(files, report.bad, tmp_path / "out")
    (mended,) = read(str(tmp_path / "out" / "good.jsonl"))
    assert mended.digest == read_good(source).digest
    assert len((tmp_path / "out" / "bad.jsonl").read_text().splitlines()) == 1


def read_good(source):
    spec = DataSpec(train=(source,), validation=(source,), max_bad_share=0.5)
    return load_splits(spec).train[0]
