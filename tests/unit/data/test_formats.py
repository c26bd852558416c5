"""Every layout people bring becomes the same example."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile

from marslora.core.errors import DataError
from marslora.data._example import to_example
from marslora.data._media_cache import MediaCache
from tests.unit.data.conftest import picture, tone

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
    "prompt is text, completion a turn": {"prompt": "what is it?", "completion": [ANSWERED], "images": ["0.png"]},
    "openai, input_image": {
        "messages": [
            {"role": "user", "content": [{"type": "input_image", "image_url": data_url()}, ASKED["content"][1]]},
            ANSWERED,
        ]
    },
    "bytes": {"messages": list(PARTS), "images": [{"bytes": png(), "path": None}]},
    "in memory": {"messages": list(PARTS), "images": [picture()]},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_example(layout, folder):
    example = to_example(LAYOUTS[layout], MediaCache(folder), "rows", 1)
    assert example.messages == PARTS
    assert [image.open().tobytes() for image in example.images] == [picture().tobytes()]


def test_images_stand_where_their_tags_stand(folder):
    text = "left <image>\nright <image> which?"
    example = to_example(
        {"prompt": text, "completion": "left", "images": ["1.png", "2.png"]}, MediaCache(folder), "rows", 1
    )
    assert [part.get("text", part["type"]) for part in example.messages[0]["content"]] == [
        "left ",
        "image",
        "right ",
        "image",
        " which?",
    ]
    assert [image.source.name for image in example.images] == ["1.png", "2.png"]


def test_a_picture_with_a_caption_is_a_question_without_words(folder):
    example = to_example({"image": "0.png", "caption": "a cat"}, MediaCache(folder), "", 1)
    assert example.messages[0] == {"role": "user", "content": [{"type": "image"}]}
    assert example.messages[1] == ANSWERED


def test_rows_with_and_without_pictures_and_with_several_mix(folder):
    rows = [
        {"prompt": "?", "completion": "a", "images": images} for images in ([], None, ["0.png"], ["1.png", "2.png"])
    ]
    assert [len(to_example(row, MediaCache(folder), "", 1).images) for row in rows] == [0, 0, 1, 2]


def test_answers_of_the_prompt_are_read_and_not_learned(folder):
    prompt = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    messages = to_example({"prompt": prompt, "completion": "b"}, MediaCache(folder), "", 1).messages
    assert [message.get("learn", True) for message in messages] == [True, False, True, True]


def test_sounds_stand_where_their_tags_stand(folder):
    tone(folder / "a.wav")
    tone(folder / "b.wav", frequency=300)
    row = {
        "prompt": "<audio> or <image> or <audio>?",
        "completion": "b",
        "audios": ["a.wav", "b.wav"],
        "image": "0.png",
    }
    example = to_example(row, MediaCache(folder), "", 1)
    assert [part.get("text", part["type"]) for part in example.messages[0]["content"]] == [
        "audio",
        " or ",
        "image",
        " or ",
        "audio",
        "?",
    ]
    assert [sound.source.name for sound in example.sounds] == ["a.wav", "b.wav"]


def wave(folder) -> bytes:
    return tone(folder / "a.wav").read_bytes()


HEARD = {
    "path": lambda folder: "a.wav",
    "bytes": wave,
    "bytes in a dict": lambda folder: {"bytes": wave(folder), "path": None},
    "data URL": lambda folder: "data:audio/wav;base64," + base64.b64encode(wave(folder)).decode(),
    "array": lambda folder: {"array": soundfile.read(folder / "a.wav")[0].tolist(), "sampling_rate": 8000, "path": "x"},
    "array of channels": lambda folder: {"array": [soundfile.read(folder / "a.wav")[0]] * 2, "sampling_rate": 8000},
}


@pytest.mark.parametrize("kind", HEARD)
@pytest.mark.parametrize("column", ["audio", "audios"])
def test_every_way_to_hold_a_sound_gives_the_same_samples(kind, column, folder):
    tone(folder / "a.wav")
    value = HEARD[kind](folder)
    row = {"prompt": "?", "completion": "b", column: [value] if column == "audios" else value}
    (sound,) = to_example(row, MediaCache(folder), "", 1).sounds
    assert np.allclose(sound.open(8000), soundfile.read(folder / "a.wav")[0], atol=1e-6)
    assert sound.seconds == 0.5


def test_the_sound_of_an_openai_turn(folder):
    data = base64.b64encode(wave(folder)).decode()
    content = [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}, {"type": "text", "text": "?"}]
    example = to_example(make_row(("user", content), ("assistant", "b")), MediaCache(folder), "", 1)
    assert example.messages[0]["content"][0] == {"type": "audio"} and example.sounds[0].seconds == 0.5


def test_a_system_turn_comes_first(folder):
    row = {"system": "be kind", "conversations": talk("human", "gpt")}
    assert [message["role"] for message in to_example(row, MediaCache(folder), "", 1).messages] == [
        "system",
        "user",
        "assistant",
    ]


def make_row(*turns: tuple[str, object]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


BAD = {
    "must have the columns": {"text": "hello"},
    "alternate user, assistant": make_row(("assistant", "a"), ("user", "b")),
    "end in an answer": make_row(("user", "a")),
    "has no text to learn": make_row(("user", "a"), ("assistant", " ")),
    "role must be": make_row(("user", "a"), ("observation", "b")),
    "content must be text": make_row(("user", 3), ("assistant", "b")),
    "`messages` must be a list": {"messages": "hello"},
    "must be a list of turns, found str": {"conversations": "hello"},
    "a turn must be an object": {"conversations": ["hello"]},
    "text or a list of turns": {"prompt": 3, "completion": "b"},
    "pairs of a question": {"instruction": "a", "output": "b", "history": ["a"]},
    "must be text, found list": {"image": "0.png", "text": ["a", "b"]},
    "must have its text": make_row(("user", [{"type": "text"}]), ("assistant", "b")),
    "video `": {**make_row(("user", "<video>?"), ("assistant", "b")), "videos": ["a.mp4"]},
    "placeholders for boxes": {
        **make_row(("user", "<bbox>?"), ("assistant", "b")),
        "objects": {"bbox": [[1, 2, 3, 4]]},
    },
    "`loss` false": {
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "b", "loss": False}]
    },
    "more audio placeholders": {**make_row(("user", "<audio>?"), ("assistant", "b"))},
    "audio `.*gone.wav` does not exist": {"prompt": "?", "completion": "b", "audio": "gone.wav"},
    "is not a sound that libsndfile can open": {"prompt": "?", "completion": "b", "audio": "text.png"},
    "is empty": {"prompt": "?", "completion": "b", "audio": {"array": [], "sampling_rate": 8000}},
    "with `array` and `sampling_rate`": {"prompt": "?", "completion": "b", "audio": {"array": [0.1]}},
    "must hold numbers": {"prompt": "?", "completion": "b", "audio": {"array": [[1], [2, 3]], "sampling_rate": 8}},
    "cut off": {"prompt": "?", "completion": "b", "audio": "cut.wav"},
    "must be text, an image, audio or a video": make_row(("user", [{"type": "file"}]), ("assistant", "b")),
    "more image placeholders": {**make_row(("user", "<image><image>?"), ("assistant", "b")), "images": ["0.png"]},
    "1 image placeholders, but the row has 2": {
        **make_row(("user", "<image>?"), ("assistant", "b")),
        "images": ["0.png", "1.png"],
    },
    "does not exist": {**make_row(("user", "?"), ("assistant", "b")), "images": ["nowhere.png"]},
    "is not a picture that Pillow can open": {**make_row(("user", "?"), ("assistant", "b")), "images": ["text.png"]},
    "base64 text is damaged": {**make_row(("user", "?"), ("assistant", "b")), "images": ["data:image/png;base64,???"]},
    "data URL must have the form": {**make_row(("user", "?"), ("assistant", "b")), "images": ["data:image/png"]},
    "on the network": {**make_row(("user", "?"), ("assistant", "b")), "images": ["https://example.org/a.png"]},
    "must have `bytes` or a `path`": {**make_row(("user", "?"), ("assistant", "b")), "images": [{"size": 3}]},
    "found int": {**make_row(("user", "?"), ("assistant", "b")), "images": [3]},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_refused_with_its_reason(reason, folder):
    (folder / "text.png").write_text("no picture")
    (folder / "cut.wav").write_bytes(wave(folder)[:1000])
    with pytest.raises(DataError, match=reason.replace("(", r"\(")):
        to_example(BAD[reason], MediaCache(folder), "rows", 1)
