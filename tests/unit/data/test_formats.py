"""Every layout people bring becomes the same example."""

from __future__ import annotations

import base64
import io

import pytest

from marslora.core.errors import DataError
from marslora.data._rows import to_example
from marslora.data.pictures import Album
from tests.unit.data.conftest import picture

ASKED = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}
ANSWERED = {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]}
PARTS = (ASKED, ANSWERED)


def png(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def data_url() -> str:
    return "data:image/png;base64," + base64.b64encode(png()).decode()


def openai() -> dict:
    asked = [{"type": "image_url", "image_url": {"url": data_url()}}, {"type": "text", "text": "what is it?"}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": "a cat"}]}


def talk(first: str, second: str, tag: str = "what is it?") -> list[dict]:
    return [{"from": first, "value": tag}, {"from": second, "value": "a cat"}]


LAYOUTS = {
    "trl": {"messages": list(PARTS), "images": ["0.png"]},
    "trl, one image": {"messages": list(PARTS), "image": "0.png"},
    "trl, no placeholder": {
        "messages": [{"role": "user", "content": "what is it?"}, {"role": "assistant", "content": "a cat"}],
        "images": ["0.png"],
    },
    "prompt and completion": {"prompt": [ASKED], "completion": [ANSWERED], "images": ["0.png"]},
    "prompt and completion, text": {"prompt": "what is it?", "completion": "a cat", "image": "0.png"},
    "openai": openai(),
    "llava": {"id": "1", "image": "0.png", "conversations": talk("human", "gpt", "<image>\nwhat is it?")},
    "sharegpt": {"images": ["0.png"], "conversations": talk("user", "assistant", "<image>what is it?")},
    "ms-swift": {
        "messages": [
            {"role": "user", "content": "<image>what is it?"},
            {"role": "assistant", "content": "a cat"},
        ],
        "images": [{"path": "0.png"}],
    },
    "alpaca": {"instruction": "what is it?", "input": "", "output": "a cat", "images": ["0.png"]},
    "axolotl": {
        "messages": [
            {"role": "user", "content": [{"type": "image", "path": "0.png"}, {"type": "text", "text": "what is it?"}]},
            ANSWERED,
        ]
    },
    "bytes": {"messages": list(PARTS), "images": [{"bytes": png(), "path": None}]},
    "in memory": {"messages": list(PARTS), "images": [picture()]},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_example(layout, folder):
    example = to_example(LAYOUTS[layout], Album(folder), "rows", 1)
    assert example.messages == PARTS
    assert [list(image.open().getdata()) for image in example.images] == [list(picture().getdata())]


def test_images_stand_where_their_tags_stand(folder):
    text = "left <image>\nright <image> which?"
    example = to_example({"prompt": text, "completion": "left", "images": ["1.png", "2.png"]}, Album(folder), "rows", 1)
    assert [part.get("text", part["type"]) for part in example.messages[0]["content"]] == [
        "left ",
        "image",
        "right ",
        "image",
        " which?",
    ]
    assert [image.source.name for image in example.images] == ["1.png", "2.png"]


def test_a_system_turn_comes_first(folder):
    row = {"system": "be kind", "conversations": talk("human", "gpt")}
    assert [message["role"] for message in to_example(row, Album(folder), "", 1).messages] == [
        "system",
        "user",
        "assistant",
    ]


def said(*turns: tuple[str, object]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


BAD = {
    "must have the columns": {"text": "hello"},
    "go user, assistant": said(("assistant", "a"), ("user", "b")),
    "end in an answer": said(("user", "a")),
    "there is no answer": said(("user", "a"), ("assistant", " ")),
    "role must be": said(("user", "a"), ("tool", "b")),
    "content must be text": said(("user", 3), ("assistant", "b")),
    "must be text or an image": said(("user", [{"type": "video"}]), ("assistant", "b")),
    "more image placeholders": {**said(("user", "<image><image>?"), ("assistant", "b")), "images": ["0.png"]},
    "1 image placeholders and the row 2": {
        **said(("user", "<image>?"), ("assistant", "b")),
        "images": ["0.png", "1.png"],
    },
    "does not exist": {**said(("user", "?"), ("assistant", "b")), "images": ["nowhere.png"]},
    "no picture that can be opened": {**said(("user", "?"), ("assistant", "b")), "images": ["text.png"]},
    "base64 text is damaged": {**said(("user", "?"), ("assistant", "b")), "images": ["data:image/png;base64,???"]},
    "data URL must read": {**said(("user", "?"), ("assistant", "b")), "images": ["data:image/png"]},
    "on the network": {**said(("user", "?"), ("assistant", "b")), "images": ["https://example.org/a.png"]},
    "must have `bytes` or a `path`": {**said(("user", "?"), ("assistant", "b")), "images": [{"size": 3}]},
    "found int": {**said(("user", "?"), ("assistant", "b")), "images": [3]},
}


@pytest.mark.parametrize("reason", BAD)
def test_what_is_wrong_with_a_row_is_said(reason, folder):
    (folder / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=reason.replace("(", r"\(")):
        to_example(BAD[reason], Album(folder), "rows", 1)
