"""Nothing of a row is dropped without a word: every key and every placeholder is read, refused or counted."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from marslora.core.errors import DataError
from marslora.core.spec import DataSpec
from marslora.data._example import to_example
from marslora.data._media_cache import MediaCache
from marslora.data.check import check_data
from marslora.data.splits import load_splits
from tests.unit.data.conftest import tone, write_lines

ANSWER = {"role": "assistant", "content": "red"}


def ask(content, *images, **columns):
    row = {"messages": [{"role": "user", "content": content}, ANSWER], **columns}
    return {**row, "images": list(images)} if images else row


def read(row, folder):
    return to_example(row, MediaCache(folder), "rows", 1)


def shown(example):
    """Texts and the names of the pictures and sounds, in the order in which the model sees them."""
    images, sounds = iter(example.images), iter(example.sounds)
    names = {"image": lambda: next(images).source.name, "audio": lambda: next(sounds).source.name}
    parts = [part for message in example.messages for part in message["content"]]
    return [part["text"] if part["type"] == "text" else names[part["type"]]() for part in parts]


A, B = "0.png", "1.png"
PLACES = {
    "<image1><image2> compare": [A, B, " compare"],
    "A <image_1> B <image_2>": ["A ", A, " B ", B],
    "A <image_2> B <image_1>": ["A ", B, " B ", A],
    "<image_0>, <image_1>?": [A, ", ", B, "?"],
    "<|image_1|> or <|image_2|>?": [A, " or ", B, "?"],
    "<IMAGE><Image>which?": [A, B, "which?"],
    "<|vision_start|><|image_pad|><|vision_end|><|image_pad|>which?": [A, B, "which?"],
    "[IMG]\n[IMG][IMG_END]which?": [A, B, "which?"],
    "<start_of_image><image_soft_token>which?": None,
    "<img><ImageHere></img>a<ImageHere>b": [A, "a", B, "b"],
    "(<image>./</image>)\n(<image>./</image>)\nwhich?": [A, B, "which?"],
    "<|image|><|image|>which?": [A, B, "which?"],
    "no placeholder": [A, B, "no placeholder"],
}


@pytest.mark.parametrize("text", [text for text, expected in PLACES.items() if expected])
@pytest.mark.parametrize("as_part", [False, True])
def test_placeholders_of_the_trade_stand_for_their_pictures(text, as_part, folder):
    content = [{"type": "text", "text": text}] if as_part else text
    assert shown(read(ask(content, A, B), folder)) == [*PLACES[text], "red"]


def test_placeholders_of_sounds(folder):
    tone(folder / "a.wav")
    for tag in ("<audio>", "<|AUDIO|>", "<|audio_bos|><|AUDIO|><|audio_eos|>", "<audio1>", "<|audio_1|>", "<sound>"):
        assert shown(read({**ask(f"{tag}what?"), "audios": ["a.wav"]}, folder)) == ["a.wav", "what?", "red"]


def test_parts_name_their_picture_by_index(folder):
    content = [{"type": "text", "text": "A"}, {"type": "image", "index": 1}, {"type": "image", "index": 0}]
    assert shown(read(ask(content, A, B), folder)) == ["A", B, A, "red"]


def test_parts_without_a_type_are_known_by_their_keys(folder):
    assert shown(read(ask([{"image": A}, {"text": "what?"}]), folder)) == [A, "what?", "red"]


def test_html_in_an_answer_is_text(folder):
    html = '<img src="a.png"><video controls></video><img>'
    row = {"messages": [{"role": "user", "content": "<image>write it"}, {"role": "assistant", "content": html}]}
    assert shown(read({**row, "images": [A]}, folder)) == [A, "write it", html]
    assert shown(read(ask("what does <img> do?"), folder)) == ["what does <img> do?", "red"]


REFUSED = {
    "no image for `index 5`": ask([{"type": "image", "index": 5}, {"type": "text", "text": "?"}], A),
    "no image for `<image3>`": ask("<image1><image3>", A, B),
    "some image placeholders have numbers": ask("<image1><image>", A, B),
    "1 image placeholders, but the row has 2": ask("<image1>?", A, B),
    "`<img>a.png</img>`, which looks like a placeholder": ask("<img>a.png</img> what?", A),
    "more video placeholders than the row has videos (0)": ask("<video> what happens?", A),
    "`</video>`, which looks like a placeholder": ask("</video>?", A),
    "`<image_end>`": ask("<image_end>?", A),
    "`<ImageContent>`": ask("<ImageContent>?", A),
    "`<image: a.png>`": ask("<image: a.png>?", A),
    "`[image1]`": ask("[image1]?", A),
    "`{image}`": ask("{image}?", A),
    "must be text, an image, audio or a video": ask([{"type": "image_grid", "text": "x"}]),
    "a part of a turn must be text, an image, audio or a video, found int": ask([3]),
    "a part's `index` must be": ask([{"type": "image", "index": "first"}], A),
    "an image's `crop`": ask([{"type": "image", "image": A, "crop": [0, 0, 1, 1]}]),
    "an entry of `tool_calls` must be a function with a `name`": {
        "messages": [{"role": "user", "content": "?"}, {**ANSWER, "tool_calls": [{"id": "1", "function": {}}]}]
    },
    "`tools` must be a list": ask("?", tools={"name": "crop"}),
    "`tools` is not valid JSON": ask("?", tools="crop"),
    "the row has `functions`, an old form": ask("?", functions=[{"name": "crop"}]),
    "end in an answer, found ['user', 'tool', 'assistant']": {
        "messages": [{"role": "user", "content": "?"}, {"role": "tool", "content": "1"}, ANSWER]
    },
    "preferences (`chosen`, `rejected`)": {"prompt": "?", "chosen": "red", "rejected": "blue"},
    "preferences (`answer_chosen`)": ask("?", answer_chosen="blue"),
    "preferences (`rejected_response`)": ask("?", rejected_response="blue"),
    "preferences (`label`)": {"prompt": "?", "completion": "red", "label": False},
    "a turn has `images`": {"messages": [{"role": "user", "content": "?", "images": [A]}, ANSWER]},
    "a turn's `weight` must be": {"messages": [{"role": "user", "content": "?"}, {**ANSWER, "weight": 0.5}]},
    "`weight` 0": {"messages": [{"role": "user", "content": "?"}, {**ANSWER, "weight": 0}]},
    "role must be system, user, assistant or tool, found list": {
        "messages": [{"role": ["user"], "content": "x"}, ANSWER]
    },
    "half a character": ask("nice \ud83d"),
    "`input` must be text, found int 5": {"instruction": "Add 2 to", "input": 5, "output": "7"},
    "`answer` must be text, found list": {"question": "?", "answer": ["a", "b"]},
    "`messages` is not valid JSON": {"messages": "[{"},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_would_say_something_else_is_refused_by_name(reason, folder):
    with pytest.raises(DataError) as caught:
        read(REFUSED[reason], folder)
    assert reason in str(caught.value)


def test_what_is_not_read_is_counted(folder):
    rows = [
        {
            "id": 7,
            "source": "",
            "metadata": {},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": f"{number}?", "cache": 1}], "name": "Ann"},
                ANSWER,
            ],
        }
        for number in range(12)
    ]
    rows[0]["topic"] = "colors"
    expected = {
        "`name` of a turn: not read": 12,
        "`cache` of a part: not read": 12,
        "`id`: not read": 12,
        "`topic`: not read": 1,
    }
    source = write_lines(folder / "rows.jsonl", rows)
    assert check_data([source]).notes == expected
    report = load_splits(DataSpec(train=(source,))).report
    assert report.notes == expected and "`topic`: 1 row, not read" in report.warnings


def test_columns_of_any_type_are_counted(folder):
    columns = {"embedding": np.ones(3), "scores": {1, 2}, "empty": np.ones(0), "tags": "[]"}
    example = read(ask([{"type": "text", "text": "?", "weights": np.ones(2)}], **columns), folder)
    assert example.notes == (
        "`weights` of a part: not read",
        "`embedding`: not read",
        "`scores`: not read",
        "`empty`: not read",
    )


def test_columns_that_a_registry_does_not_name_are_counted(folder):
    (folder / "talk.json").write_text(json.dumps([{"q": "?", "a": "yes", "image": A, "topic": "x"}]))
    entry = {"file_name": "talk.json", "columns": {"prompt": "q", "response": "a"}}
    (folder / "dataset_info.json").write_text(json.dumps({"talk": entry}))
    assert check_data([str(folder)]).notes == {
        "`topic`: not read": 1,
        "`image (not in dataset_info.json)`: not read": 1,
    }


@pytest.mark.parametrize("key", ["loss", "weight", "train"])
def test_an_answer_of_weight_0_is_read_and_not_learned(key, folder):
    turns = [
        {"role": "user", "content": "a?"},
        {**ANSWER, key: 0},
        {"role": "user", "content": "b?"},
        {**ANSWER, key: 1},
    ]
    assert [message.get("learn", True) for message in read({"messages": turns}, folder).messages] == [
        True,
        False,
        True,
        True,
    ]


def test_neighbours_of_one_role_are_one_turn(folder):
    turns = [
        {"role": "system", "content": "You name colors."},
        {"role": "user", "content": "what color?"},
        {"role": "user", "content": [{"type": "image"}]},
        {"role": "user", "content": [{"type": "text", "text": "well?"}, {"type": "text", "text": "now"}]},
        ANSWER,
        {**ANSWER, "content": "or pink"},
    ]
    example = read({"messages": turns, "images": [A]}, folder)
    assert [message["role"] for message in example.messages] == ["system", "user", "assistant"]
    assert shown(example) == ["You name colors.", "what color?", A, "well?", "now", "red\nor pink"]
    assert example.notes == ("neighbouring turns of one role: joined",)


@pytest.mark.parametrize(
    "row",
    [
        {"query": "what?", "response": "red", "images": [A]},
        {"question": "what?", "answer": "red", "image": A},
        {"query": "what?", "response": "red", "images": json.dumps([A])},
        {"messages": json.dumps(ask("what?")["messages"]), "image": A},
        {
            "conversations": json.dumps([{"from": "human", "value": "what?"}, {"from": "gpt", "value": "red"}]),
            "image": A,
        },
    ],
)
def test_more_layouts_are_the_same_example(row, folder):
    assert shown(read(row, folder)) == [A, "what?", "red"]


LINE = json.dumps({"question": "what?", "answer": "red"}) + "\n"
FILES = {
    "a.JSONL": LINE.encode(),
    "a.jsonl.gz": gzip.compress(LINE.encode()),
    "a.json.gz": gzip.compress(f"[{LINE}]".encode()),
    "a.tsv": b"question\tanswer\nwhat?\tred\n",
    "a.csv.GZ": gzip.compress(b"question,answer\nwhat?,red\n"),
}


@pytest.mark.parametrize("name", FILES)
def test_more_file_types_are_the_same_rows(name, folder):
    (folder / name).write_bytes(FILES[name])
    report = check_data([str(folder / name)])
    assert (report.num_rows, report.num_bad, report.num_turns) == (1, 0, 2)


def test_a_damaged_archive_is_bad_from_where_it_breaks_off(folder):
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(LINE.encode() * 1000)[:-20])
    (bad,) = check_data([str(folder / "a.jsonl.gz")]).bad
    assert bad.row == 0 and "cannot be read after row" in bad.reason
