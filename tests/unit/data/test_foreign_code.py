"""Whatever a row holds, and whatever foreign code raises on it, is the reason of that row: others go on."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random

import pyarrow as pa
import pytest
from pyarrow import parquet

from marslora.core.errors import DataError
from marslora.data import _formats, repair
from marslora.data._media_cache import MediaCache
from marslora.data._row_checks import RowChecker, RowChunk
from marslora.data.check import check_data, resolve_files
from marslora.data.encode import encode
from marslora.data.splits import BadRow, read_example, register_rows
from tests.helpers import tiny_processors as tiny
from tests.unit.data.conftest import picture, row, tone
from tests.unit.data.test_encode import examples_of

TURNS = [{"role": "user", "content": "<image>what?"}, {"role": "assistant", "content": "red", "weight": 1}]
PARTS = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": [{"type": "image", "index": 0}, {"type": "text", "text": "what?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
]
SEEDS = [
    {"messages": TURNS, "images": ["0.png"]},
    {"messages": PARTS, "images": ["0.png"], "system": "hello"},
    {"messages": [*TURNS[:1], TURNS[1], {"role": "user", "content": "b?"}, TURNS[1]], "image": "1.png"},
    {"conversations": [{"from": "human", "value": "<image1>?"}, {"from": "gpt", "value": "a"}], "images": ["0.png"]},
    {"instruction": "add", "input": "2", "output": "4", "history": [["a", "b"]], "system": "s"},
    {"prompt": "what?", "completion": "red", "image": {"path": "0.png", "bytes": None}},
    {"prompt": [TURNS[0]], "completion": [TURNS[1]], "images": [{"url": "0.png"}]},
    {"question": "what?", "answer": "red", "audio": {"array": [0.0, 0.5, -0.5] * 20, "sampling_rate": 8000}},
    {"audio": "a.wav", "transcription": "a tone"},
    {"images": "0.png", "text": "a picture"},
]
ODD = [
    *(None, True, False, 0, 1, -1, 2.5, float("nan"), float("inf"), 10**30, "", " ", "a", "\ud800", "\0", "x" * 3000),
    *(
        [],
        {},
        [None],
        [[]],
        {"a": 1},
        [{}],
        [1, 2],
        ["a", 3],
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF",
        ("user", "x"),
        {1: 2},
    ),
    *("<image>", "<image9>", "<audio>", "<|image_pad|>", "<video>", "[IMG]", "{{ messages }}", "<|im_end|>", "</s>"),
    *("data:image/png;base64,AAAA", "https://example.org/a.png", "~nobody/a.png", "/", "0.png", "file://0.png", "[1"),
    *({"type": "image"}, {"type": "text"}, {"type": ["image"]}, {"role": "user"}, {"bytes": "x"}, {"array": None}),
    *({"array": [[0.1] * 3] * 3, "sampling_rate": 7}, {"path": "a.wav", "start": 1}, {"data": 5}, {"path": 3}),
    *("user", "assistant", "system", "tool", "content", range(3), {"a"}, 1j, object()),
]
KEYS = [
    *("messages", "images", "image", "audio", "audios", "videos", "system", "prompt", "completion", "chosen", "tools"),
    *(
        "role",
        "content",
        "type",
        "text",
        "index",
        "weight",
        "loss",
        "tool_calls",
        "from",
        "value",
        "objects",
        "label",
        7,
    ),
]


def mutate(value, rng):
    """``value`` with one to three changes, each at any depth."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = list(list_places(value))
        holder, key = rng.choice(places)
        change = rng.random()
        if change < 0.55:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif change < 0.7:
            del holder[key]
        elif change < 0.8 and isinstance(holder, list):
            holder.insert(rng.randint(0, len(holder)), copy.deepcopy(holder[key]))
        elif change < 0.9:
            holder[key] = [holder[key]]
        elif isinstance(holder, dict):
            holder[rng.choice(KEYS)] = copy.deepcopy(rng.choice(ODD))
        if not value:
            value["messages"] = None
    return value


def list_places(value):
    """(container, key) of everything inside a row."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from list_places(value[key])


def read_mutated(count, seed, folder):
    """(rows read, the good examples among them); any other exception than a reason of the row ends the test."""
    tone(folder / "a.wav")
    rng = random.Random(seed)
    checker = RowChecker(image_folder=str(folder))
    cache, good = MediaCache(folder, allow_outside=False), []
    for number in range(count):
        mutated = mutate(rng.choice(SEEDS), rng)
        example = read_example(mutated, cache, "fuzz", number)
        (report,) = checker(RowChunk("fuzz", folder, [(number, mutated)]))
        if isinstance(example, BadRow):
            assert example.reason and report.reason == example.reason, mutated
        elif report.reason is None:
            good.append(example)
    return good


def test_mutated_rows_are_good_or_bad_and_nothing_else(folder):
    good = read_mutated(1500, 1, folder)
    assert 100 < len(good) < 1400
    seen = [example for example in good if not example.sounds][:150]
    encoded = encode(seen, tiny.llava_processor(), max_bad_share=1.0)
    assert len(encoded) + len(encoded.skipped) == len(seen) and len(encoded) > 50


@pytest.mark.slow
def test_a_hundred_thousand_mutated_rows_are_good_or_bad_and_nothing_else(folder):
    for seed in range(20):
        good = read_mutated(5000, 100 + seed, folder)
        seen = [example for example in good if not example.sounds]
        encoded = encode(seen, tiny.llava_processor(), max_bad_share=1.0)
        assert len(encoded) + len(encoded.skipped) == len(seen)


def damage(data, rng):
    """Bytes with a piece left out, doubled or changed, or cut off."""
    at, length = rng.randrange(len(data)), rng.randrange(1, 40)
    piece = {
        "cut": b"",
        "drop": data[at + length :],
        "double": data[at : at + length] * 2 + data[at + length :],
        "change": rng.randbytes(length) + data[at + length :],
    }[rng.choice(["cut", "drop", "double", "change"])]
    return data[:at] + piece


def test_damaged_files_are_bad_rows_and_nothing_else(folder, tmp_path_factory):
    rows = [{"question": f"what {number}?", "answer": "red", "image": "0.png"} for number in range(6)]
    lines = "".join(json.dumps(one) + "\n" for one in rows).encode()
    table = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), table)
    cells = "question,answer\n" + "".join(f"what {number}?,red\n" for number in range(6))
    files = {"a.jsonl": lines, "a.json": json.dumps(rows).encode(), "a.csv": cells.encode(), "a.tsv": cells.encode()}
    files |= {f"{name}.gz": gzip.compress(data) for name, data in files.items()} | {"a.parquet": table.getvalue()}
    rng = random.Random(2)
    for number in range(8):
        for name, data in files.items():
            place = folder / f"{number}{name}"
            place.write_bytes(damage(data, rng))
            report = check_data([str(place)])
            assert report.num_rows + len(report.bad) > 0
            assert all(bad.reason for bad in report.bad)
            if report.bad:
                out = tmp_path_factory.mktemp("out") / "mended"
                repair.write_repaired(resolve_files([str(place)]), report.bad, out)


class Strange(Exception):
    """What no one foresees."""


ERRORS = [Strange("odd"), ZeroDivisionError("odd"), AssertionError("odd"), RecursionError("odd"), OSError("odd")]


def questions():
    return [row(f"what {index}?", "x", picture(index)) for index in range(4)] + [row("bad?", "x", picture(9))]


def assert_one_is_bad(examples, processor):
    encoded = encode(examples, processor, max_bad_share=0.5)
    assert list(encoded.rows) == [0, 1, 2, 3] and "odd" in encoded.skipped[0].reason


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_processor_raises_is_the_rows_reason(error, monkeypatch):
    processor = tiny.llava_processor()
    call = type(processor).__call__

    def strange(self, images=None, text=None, **options):
        if any("bad?" in one for one in text):
            raise error
        return call(self, images=images, text=text, **options)

    monkeypatch.setattr(type(processor), "__call__", strange)
    assert_one_is_bad(examples_of(questions()), processor)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_tokenizer_raises_is_the_rows_reason(error, monkeypatch):
    processor = tiny.llava_processor()
    call = type(processor.tokenizer).__call__

    def strange(self, text, **options):
        if "return_offsets_mapping" in options and any("bad?" in one for one in text):
            raise error
        return call(self, text, **options)

    monkeypatch.setattr(type(processor.tokenizer), "__call__", strange)
    assert_one_is_bad(examples_of(questions()), processor)


def test_what_a_template_raises_is_the_rows_reason():
    template = tiny.CHATML + "{{ raise_exception('odd') if 'bad?' in messages[0]['content'][-1]['text'] }}"
    assert_one_is_bad(examples_of(questions()), tiny.llava_processor(template))
    source = register_rows("template", questions())
    (bad,) = check_data([source], processor=lambda: tiny.llava_processor(template)).bad
    assert bad.row == 5 and "odd" in bad.reason


def test_what_a_format_raises_is_the_rows_reason(monkeypatch):
    read = _formats.read_turns

    def strange(columns):
        if "bad?" in str(dict(columns)):
            raise Strange("odd")
        return read(columns)

    monkeypatch.setattr(_formats, "read_turns", strange)
    (bad,) = check_data([register_rows("format", questions())]).bad
    assert bad.row == 5 and "Strange: odd" in bad.reason


@pytest.mark.parametrize("word", ["system", "user", "assistant"])
@pytest.mark.parametrize("template", [tiny.CHATML, tiny.CHATML_MARKED], ids=["compared", "marked"])
def test_what_the_template_leaves_out_is_said_or_refused(word, template):
    without = "{% for message in messages %}{% if message['role'] != '" + word + "' %}"
    head, _, tail = template.replace("{% for message in messages %}", without).rpartition("{% endfor %}")
    processor = tiny.llava_processor(head + "{% endif %}{% endfor %}" + tail)
    rows = [
        {"messages": [{"role": "system", "content": f"be kind {n}"}, *row(f"what {n}?", f"it is {n}")["messages"]]}
        for n in range(3)
    ]
    report = check_data([register_rows("left out", rows)], processor=lambda: processor)
    if word == "system":
        assert report.notes == {"system turns: left out by the chat template": 3}
        assert encode(examples_of(rows), processor).notes == report.notes
    else:
        with pytest.raises(DataError, match=r"leaves out or changes `|rewrites earlier turns"):
            encode(examples_of(rows), processor)
        assert report.num_bad == 3


def test_marked_answers_without_an_end_are_said():
    template = tiny.CHATML_MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
    encoded = encode(examples_of([row("?", "x"), row("b?", "y")]), tiny.llava_processor(template))
    assert [note.partition(":")[0] for note in encoded.notes] == ["answers without an end"]
    assert encode(examples_of([row("?", "x")]), tiny.llava_processor(tiny.CHATML_MARKED)).notes == {}
