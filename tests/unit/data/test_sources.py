"""Files and folders as other tools leave them: registries, folders of media, long arrays."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marslora.core.errors import DataError
from marslora.core.spec import DataSpec
from marslora.data import _readers
from marslora.data._readers import json_file
from marslora.data.splits import load_splits
from tests.unit.data.conftest import tone, write_lines

SHAREGPT = {
    "file_name": "talk.json",
    "formatting": "sharegpt",
    "columns": {"messages": "turns", "images": "pictures", "audios": "sounds", "system": "role_play"},
    "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "me", "assistant_tag": "you"},
}
ALPACA = {
    "file_name": "tasks.jsonl",
    "columns": {"prompt": "q", "query": "more", "response": "a", "history": "before", "images": "pictures"},
}
OPENAI = {"file_name": "chat.jsonl", "formatting": "openai", "columns": {"messages": "messages"}}


@pytest.fixture
def registry(folder):
    talk = [
        {
            "turns": [{"who": "me", "says": f"<image>what is {n}?"}, {"who": "you", "says": f"it is {n}"}],
            "pictures": [f"{n}.png"],
            "sounds": [],
            "role_play": "be brief",
        }
        for n in range(4)
    ]
    (folder / "talk.json").write_text(json.dumps(talk))
    tasks = [{"q": "add", "more": str(n), "a": f"is {n}", "before": [["a", "b"]], "pictures": None} for n in range(4)]
    write_lines(folder / "tasks.jsonl", tasks)
    chat = [
        {"messages": [{"role": "user", "content": str(n)}, {"role": "assistant", "content": "x"}]} for n in range(4)
    ]
    write_lines(folder / "chat.jsonl", chat)
    entries = {"talk": SHAREGPT, "tasks": ALPACA, "chat": OPENAI, "ranked": {**ALPACA, "ranking": True}}
    (folder / "dataset_info.json").write_text(json.dumps({**entries, "hub": {"hf_hub_url": "a/b"}}))
    return folder


def texts(source: str) -> list[list[str]]:
    splits = load_splits(DataSpec(train=(source,)))
    rows = sorted((*splits.train, *splits.validation), key=lambda one: one.row)
    return [[part.get("text", part["type"]) for turn in one.messages for part in turn["content"]] for one in rows]


def test_a_registry_maps_columns_and_tags(registry):
    expected = [["be brief", "image", f"what is {n}?", f"it is {n}"] for n in range(4)]
    assert texts(f"{registry}#talk") == texts(f"{registry}/dataset_info.json:talk") == expected


def test_a_registry_of_alpaca_rows_has_its_history(registry):
    assert texts(f"{registry}#tasks") == [["a", "b", f"add\n{n}", f"is {n}"] for n in range(4)]


def test_a_registry_of_openai_rows_needs_no_tags(registry):
    assert texts(f"{registry}#chat") == [[str(n), "x"] for n in range(4)]


def test_the_only_entry_needs_no_name(registry):
    (registry / "dataset_info.json").write_text(json.dumps({"talk": SHAREGPT}))
    assert len(texts(str(registry))) == len(texts(f"{registry}/dataset_info.json")) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"holds 5 data sets. Name one of \['chat', 'hub', 'ranked', 'talk', 'tasks'\]"),
        ("#nobody", "no data set called `nobody`"),
        ("#hub", "save it to a file and name that"),
        ("#ranked", "holds preferences"),
    ],
)
def test_a_registry_that_cannot_be_used_is_refused_with_the_reason(registry, name, message):
    with pytest.raises(DataError, match=message):
        load_splits(DataSpec(train=(f"{registry}{name}",)))


def test_a_row_without_the_mapped_column_is_bad(registry):
    write_lines(registry / "tasks.jsonl", [{"q": "x", "a": "y"}] * 3 + [{"q": "x", "answer": "y"}])
    with pytest.raises(DataError, match=r"tasks.jsonl row 4: the column `a` \(response\) is missing"):
        load_splits(DataSpec(train=(f"{registry}#tasks",)))


def as_metadata(folder, rows, kind):
    if kind == "jsonl":
        write_lines(folder / "metadata.jsonl", rows)
    else:
        with (folder / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_folder_of_pictures_with_captions(folder, kind):
    as_metadata(folder, [{"file_name": f"{n}.png", "text": f'it is "{n}", so'} for n in range(4)], kind)
    assert texts(str(folder)) == [["image", f'it is "{n}", so'] for n in range(4)]


def test_a_folder_of_pictures_and_sounds_in_splits(folder):
    for split, count in (("train", 3), ("test", 1)):
        (folder / split).mkdir()
        for n in range(count):
            (folder / f"{n}.png").rename(folder / split / f"{n}.png") if n else None
            tone(folder / split / f"{n}.wav", frequency=200 + n)
        rows = [
            {"file_names": [f"{n}.wav"], "prompt": "<audio> says?", "completion": f"{split} {n}"} for n in range(count)
        ]
        as_metadata(folder / split, rows, "jsonl")
    assert texts(str(folder)) == [["audio", " says?", f"train {n}"] for n in range(3)]
    splits = load_splits(DataSpec(train=(str(folder),), test=(str(folder),)))
    assert [one.messages[-1]["content"][0]["text"] for one in splits.test] == ["test 0"]


def test_a_row_of_metadata_must_name_a_file(folder):
    as_metadata(folder, [{"file_name": "0.png", "text": "a"}] * 3 + [{"file_name": None, "text": "b"}], "jsonl")
    with pytest.raises(DataError, match=r"row 4: a row of metadata must name a file under `file_name`"):
        load_splits(DataSpec(train=(str(folder),)))


def test_files_of_other_splits_are_left_out(tmp_path):
    rows = [{"prompt": "q", "completion": "a"}]
    write_lines(tmp_path / "part-0.jsonl", rows * 3)
    write_lines(tmp_path / "part-1.jsonl", rows * 3)
    write_lines(tmp_path / "test.jsonl", rows)
    assert len(texts(str(tmp_path))) == 6


ENTRIES = st.lists(
    st.dictionaries(
        st.text(max_size=3), st.recursive(st.none() | st.integers() | st.text(max_size=8), st.lists), max_size=3
    )
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ENTRIES, st.sampled_from([None, 1, 4]), st.integers(1, 40))
def test_an_array_read_in_pieces_is_the_array(tmp_path_factory, entries, indent, chunk):
    path = tmp_path_factory.mktemp("array") / "rows.json"
    path.write_text(json.dumps(entries, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_file, "_CHUNK_CHARACTERS", chunk)
        file = json_file.JsonFile(path)
        assert list(file.rows()) == list(enumerate(entries, start=1))
        lines = [line for _, line in file.texts()]
    assert [json.loads(line) for line in lines] == entries and not any(b"\n" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, {"a": ', "is not valid JSON after row 1"),
        ('[{"a": 1} {"a": 2}]', "after row 1 a comma"),
        ('[{"a": 1},', "is not valid JSON after row 1"),
        ("", "but is empty"),
    ],
)
def test_an_array_that_breaks_off_is_an_error_that_says_where(tmp_path, text, message):
    (tmp_path / "rows.json").write_text(text)
    (file,) = _readers.find_files(str(tmp_path / "rows.json"), "train")
    with pytest.raises(DataError, match=message):
        list(file.rows())


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_the_number_of_rows_is_known_before_they_are_read(tmp_path, name):
    rows = [{"prompt": f'"{n}" {{[', "completion": "a, b"} for n in range(50)]
    if name.endswith("csv"):
        as_metadata(tmp_path, rows, "csv")
        (tmp_path / "metadata.csv").rename(tmp_path / name)
    elif name.endswith("l"):
        write_lines(tmp_path / name, rows)
    else:
        (tmp_path / name).write_text(json.dumps(rows, indent=2))
    (file,) = _readers.find_files(str(tmp_path / name), "train")
    assert file.num_rows() == 50
