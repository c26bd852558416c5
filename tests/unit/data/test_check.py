"""Every row is checked once and ends in exactly one file; every kind of damage is named."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from marslora.core.errors import ConfigError, DataError
from marslora.core.spec import DataSpec
from marslora.data import _blobs, _row_checks, repair
from marslora.data._repeats import RepeatFinder
from marslora.data.check import CheckReport, check_data, resolve_files, summarise_lengths
from marslora.data.encode import encode
from marslora.data.splits import load_splits
from tests.helpers import tiny_processors as tiny
from tests.unit.data.conftest import picture, row, tone, write_lines


def huge_png() -> bytes:
    """A few bytes that claim to be 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


def make_row(*turns: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


DAMAGED = {
    "missing image": (row("?", "a", "gone.png"), "does not exist"),
    "truncated image": (row("?", "a", "cut.png"), "cannot be decoded: image file is truncated"),
    "text called image": (row("?", "a", "text.png"), "is not a picture that Pillow can open"),
    "empty image file": (row("?", "a", "empty.png"), "is not a picture that Pillow can open"),
    "decompression bomb": (row("?", "a", "bomb.png"), "may be a decompression bomb"),
    "missing audio": ({"prompt": "?", "completion": "a", "audio": "gone.wav"}, "does not exist"),
    "truncated audio": ({"prompt": "?", "completion": "a", "audio": "cut.wav"}, "is cut off"),
    "audio that breaks off": ({"prompt": "?", "completion": "a", "audio": "cut.flac"}, "cannot be decoded"),
    "wrong order": (make_row(("assistant", "a"), ("user", "?")), "turns must alternate user, assistant"),
    "two questions": (
        make_row(("user", "?"), ("assistant", "a"), ("system", "be kind"), ("assistant", "a")),
        "turns must alternate user, assistant",
    ),
    "no answer": (make_row(("user", "?")), "end in an answer"),
    "empty answer": (make_row(("user", "?"), ("assistant", " ")), "has no text to learn"),
    "too few images": (
        make_row(("user", "<image><image>?"), ("assistant", "a")) | {"images": ["0.png"]},
        "more image pl",
    ),
    "too many images": (
        make_row(("user", "<image>?"), ("assistant", "a")) | {"images": ["0.png"] * 2},
        "the row has 2 images",
    ),
    "no layout": ({"ask": "?", "reply": "a"}, "the row must have the columns"),
    "no object": (["?"], "must be a JSON object"),
}


@pytest.fixture
def damage(folder):
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:2000])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    (folder / "bomb.png").write_bytes(huge_png())
    (folder / "cut.wav").write_bytes(tone(folder / "a.wav").read_bytes()[:3000])
    sound = tone(folder / "a.flac", seconds=20, rate=16000).read_bytes()
    (folder / "cut.flac").write_bytes(sound[: len(sound) // 2])
    return folder


@pytest.mark.parametrize("kind", DAMAGED)
def test_every_kind_of_damage_is_named_by_file_and_row(kind, damage):
    broken, reason = DAMAGED[kind]
    source = write_lines(damage / "rows.jsonl", [row("?", "a", "0.png"), broken, row("?", "b", "1.png")])
    found = check_data([source])
    assert (found.num_rows, found.num_bad, found.num_images) == (3, 1, 2)
    assert (found.bad[0].source, found.bad[0].row) == (source, 2) and reason in found.bad[0].reason


def test_broken_lines_and_files_are_named(folder):
    (folder / "a.jsonl").write_text('{"prompt": "?", "completion": "a"}\n\n{"prompt": "?",\n\xff\n', encoding="latin-1")
    (folder / "b.jsonl").touch()
    (folder / "c.json").write_text('[{"prompt": "?", "completion": "b"}, {"prompt')
    (folder / "d.parquet").write_text("no")
    found = check_data([str(folder / name) for name in ("a.jsonl", "b.jsonl", "c.json", "d.parquet")])
    assert (found.num_rows, found.num_bad) == (4, 5)
    assert [(Path(one.source).name, one.row) for one in found.bad] == [
        ("a.jsonl", 3),
        ("a.jsonl", 4),
        ("b.jsonl", 0),
        ("c.json", 0),
        ("d.parquet", 0),
    ]
    for one, reason in zip(
        found.bad, ("not valid JSON", "not valid JSON", "is empty", "after row 1", "not a Parquet"), strict=True
    ):
        assert reason in one.reason


def test_what_is_there_is_counted(folder):
    tone(folder / "a.wav", seconds=1.5)
    rows = [
        row("one two", "three", "0.png", "1.png"),
        {"prompt": "<audio>?", "completion": "four", "audio": "a.wav"},
        row("one two", "three", "0.png", "1.png"),
        {"system": "be kind", "conversations": [{"from": who, "value": "x"} for who in ("human", "gpt") * 2]},
    ]
    found = check_data([write_lines(folder / "rows.jsonl", rows)])
    assert (found.num_rows, found.num_bad, found.num_turns, found.num_images, found.num_sounds) == (4, 0, 10, 4, 1)
    assert found.audio_seconds == 1.5 and found.num_repeats == 1
    assert found.repeats[0].endswith("rows.jsonl row 3 repeats " + str(folder / "rows.jsonl") + " row 1")
    assert (found.lengths["words"].least, found.lengths["words"].most) == (2, 6)
    assert found.lengths["characters"].quantiles["0.5"] == 11
    assert CheckReport.parse(json.loads(found.to_json())) == found


@pytest.mark.parametrize("make", [tiny.llava_processor, tiny.llava_next_processor, tiny.idefics3_processor])
def test_lengths_are_those_of_the_encoded_rows(make, folder):
    picture(3, width=90, height=40).save(folder / "wide.png")
    rows = [row("a", "b"), row("c" * 9, "d", "0.png"), row("e", "f", "1.png"), row("g", "h", "2.png", "wide.png")]
    source = write_lines(folder / "rows.jsonl", rows)
    found = check_data([source], processor=make)
    splits = load_splits(DataSpec(train=(source,), validation_share=0.3))
    encoded = encode((*splits.train, *splits.validation), make())
    lengths, bare = found.lengths["tokens"], found.lengths["text tokens"]
    assert lengths.mean == pytest.approx(encoded.num_tokens.mean(), abs=0.01)
    assert (lengths.least, lengths.most) == (encoded.num_tokens.min(), encoded.num_tokens.max())
    texts = [
        encode([one], make())
        for one in load_splits(DataSpec(train=(write_lines(folder / "b.jsonl", [row("e", "f")] * 2),))).train
    ]
    assert bare.least == texts[0].num_tokens[0] == lengths.least


def test_sounds_have_their_length_in_tokens(folder):
    rows = [
        {"prompt": "<audio>?", "completion": "a", "audio": str(tone(folder / f"{n}.wav", 0.3 + n / 5))} for n in (1, 2)
    ]
    found = check_data([write_lines(folder / "rows.jsonl", rows)], processor=tiny.qwen2_audio_processor)
    assert found.lengths["tokens"].most > found.lengths["tokens"].least > found.lengths["text tokens"].most


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60))
def test_a_histogram_holds_every_row_once(values):
    found = summarise_lengths(Counter(values))
    assert sum(found.counts) == len(values) and len(found.edges) == len(found.counts) + 1
    for low, high, count in zip(found.edges, found.edges[1:], found.counts, strict=False):
        assert count == sum(low <= value < high for value in values)
    assert found.quantiles["0.5"] == sorted(values)[(len(values) - 1) // 2]


@given(st.lists(st.integers(0, 40), max_size=80), st.integers(1, 9))
@settings(deadline=None)
def test_repeats_are_found_on_disk_as_in_memory(contents, most):
    first, expected = {}, []
    finder = RepeatFinder(most_at_once=most, written_at_once=3)
    for number, content in enumerate(contents):
        place = f"file {number // 30}"
        finder.add(hashlib.md5(bytes([content])).digest(), place, number % 30)
        if content in first:
            expected.append(f"{place} row {number % 30} repeats {first[content]}")
        first.setdefault(content, f"{place} row {number % 30}")
    assert finder.find(5) == (len(expected), tuple(expected[:5]))
    finder.close()


KINDS = st.lists(st.sampled_from(["good", "bad order", "gone", "broken", "array", "twice"]), max_size=30)


def line_of(kind: str, number: int) -> bytes:
    made = {
        "good": row(f"what is {number}?", "\u00e9" * (number % 3 + 1)),
        "twice": row("?", "same"),
        "bad order": make_row(("assistant", "a")),
        "gone": row("?", "a", "gone.png"),
        "array": [number],
    }
    return b'{"messages": [\xff' if kind == "broken" else json.dumps(made[kind], ensure_ascii=number % 2 == 0).encode()


@settings(max_examples=25, deadline=None)
@given(KINDS, KINDS, st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
def test_good_and_bad_rows_are_all_rows_in_order(tmp_path_factory, first, second, ending):
    folder = tmp_path_factory.mktemp("fix")
    lines = [[line_of(kind, number) for number, kind in enumerate(kinds)] for kinds in (first, second)]
    sources = []
    for name, own in zip(("a.jsonl", "b.jsonl"), lines, strict=True):
        (folder / name).write_bytes(b"".join(line + ending for line in own))
        sources.append(str(folder / name))
    found = check_data(sources)
    repair.write_repaired(resolve_files(sources), found.bad, folder / "out")
    good = (folder / "out" / "good.jsonl").read_bytes().splitlines()
    noted = folder / "out" / "bad.jsonl"
    bad = [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []
    texts = [one["text"].encode(errors="surrogateescape") for one in bad if one["row"]]
    is_good = [kind in ("good", "twice") for kind in (*first, *second)]
    everything = [line for own in lines for line in own]
    assert good == [line for line, fine in zip(everything, is_good, strict=True) if fine]
    assert texts == [line for line, fine in zip(everything, is_good, strict=True) if not fine]
    assert [(one["file"], one["row"], one["reason"]) for one in bad] == [(b.source, b.row, b.reason) for b in found.bad]
    if good:
        assert check_data([str(folder / "out" / "good.jsonl")]).num_bad == 0


def embedded(count: int) -> list[dict]:
    def png(seed: int) -> bytes:
        buffer = io.BytesIO()
        picture(seed).save(buffer, "PNG")
        return buffer.getvalue()[: 1000 if seed == 2 else None]

    return [
        {**make_row(("user", f"what {n}?"), ("assistant", "a")), "images": [{"bytes": png(n), "path": None}]}
        for n in range(count)
    ]


def as_parquet(folder):
    parquet.write_table(pa.Table.from_pylist(embedded(50)), folder / "rows.parquet", row_group_size=20)
    return str(folder / "rows.parquet")


def as_dataset(folder):
    turn = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    features = datasets.Features({"messages": datasets.List(turn), "images": datasets.List(datasets.Image())})
    datasets.Dataset.from_list(embedded(50), features=features).save_to_disk(folder / "set")
    return str(folder / "set")


@pytest.mark.parametrize("make", [as_parquet, as_dataset])
def test_rows_with_bytes_are_copied_as_they_are(make, tmp_path):
    source = make(tmp_path)
    found = check_data([source])
    assert [(one.row, "cannot be decoded" in one.reason) for one in found.bad] == [(3, True)]
    names = [path.name for path in repair.write_repaired(resolve_files([source]), found.bad, tmp_path / "out")]
    assert names == ["bad.jsonl", "bad.parquet", "good.parquet"]
    rows = embedded(50)
    assert parquet.read_table(tmp_path / "out" / "good.parquet").to_pylist() == rows[:2] + rows[3:]
    assert parquet.read_table(tmp_path / "out" / "bad.parquet").to_pylist() == rows[2:3]
    assert check_data([str(tmp_path / "out" / "good.parquet")]).num_bad == 0


def test_a_pretty_array_becomes_lines(tmp_path):
    rows = [row("a\nb", "c"), make_row(("user", "?")), row("d", "e")]
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=2))
    source = str(tmp_path / "rows.json")
    repair.write_repaired(resolve_files([source]), check_data([source]).bad, tmp_path / "out")
    lines = (tmp_path / "out" / "good.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [rows[0], rows[2]]


def test_a_mended_registry_reads_as_before(folder):
    rows = [
        {"q": "?", "a": "yes", "pictures": ["0.png"]},
        {"q": "?", "pictures": []},
        {"q": "!", "a": "no", "pictures": []},
    ]
    write_lines(folder / "tasks.jsonl", rows)
    columns = {"prompt": "q", "response": "a", "images": "pictures"}
    (folder / "dataset_info.json").write_text(json.dumps({"tasks": {"file_name": "tasks.jsonl", "columns": columns}}))
    found = check_data([str(folder)])
    repair.write_repaired(resolve_files([str(folder)]), found.bad, folder / "out")
    mended = check_data([str(folder / "out")], image_folder=str(folder))
    assert (found.num_bad, mended.num_bad, mended.num_rows, mended.num_images) == (1, 0, 2, 1)


def test_a_mended_folder_of_pictures_reads_as_before(folder):
    write_lines(folder / "metadata.jsonl", [{"file_name": f"{n}.png", "text": "a"} for n in (1, 2, 77)])
    found = check_data([str(folder)])
    repair.write_repaired(resolve_files([str(folder)]), found.bad, folder / "out")
    mended = check_data([str(folder / "out")], image_folder=str(folder))
    assert (found.num_bad, mended.num_bad, mended.num_images) == (1, 0, 2)


def test_nothing_is_overwritten_and_nothing_is_mixed(folder, tmp_path_factory):
    a = write_lines(folder / "a.jsonl", [row("?", "a", "0.png")])
    b = write_lines(tmp_path_factory.mktemp("b") / "b.jsonl", [row("?", "a")])
    with pytest.raises(ConfigError, match="exists already"):
        repair.check_can_repair(resolve_files([a]), folder, None)
    with pytest.raises(ConfigError, match="different folder for each"):
        repair.check_can_repair(resolve_files([a, b]), folder / "out", None)
    write_lines(folder / "metadata.jsonl", [{"file_name": "0.png", "text": "a"}])
    with pytest.raises(ConfigError, match="different layouts"):
        repair.check_can_repair(resolve_files([a, str(folder)]), folder / "out", None)
    repair.check_can_repair(resolve_files([a, b]), folder / "out", str(folder))
    with pytest.raises(DataError, match="does not exist"):
        check_data([a, "nowhere.jsonl"])


@pytest.mark.slow
def test_several_processes_report_what_one_does(damage, monkeypatch):
    rows = [DAMAGED[kind][0] for kind in DAMAGED] + [row(str(n), "a", f"{n % 10}.png") for n in range(200)]
    source = write_lines(damage / "rows.jsonl", rows)
    by_one = check_data([source], processor=tiny.llava_processor)
    monkeypatch.setattr(_row_checks, "_START_SECONDS", 0.0)
    done: list[tuple[int, int]] = []
    by_several = check_data(
        [source], processor=tiny.llava_processor, workers=2, progress=lambda *step: done.append(step)
    )
    assert by_several == by_one
    assert done[-1] == (216, 216) and done == sorted(done)


@pytest.mark.parametrize(("others_take", "shared"), [(0.0, True), (60.0, False)])
def test_other_processes_start_only_if_the_work_takes_longer_than_that(monkeypatch, others_take, shared):
    def chunks(number):
        return iter([_row_checks.RowChunk("a", Path(), [(n, {"n": n})]) for n in range(number)])

    def in_processes(rest, checker, workers):
        started.append(workers)
        return ((chunk, checker(chunk)) for chunk in rest)

    def checker(chunk):
        clock[0] += 5.0 if not loaded else 1.0  # the first row loads the processor
        loaded.append(chunk)
        return []

    clock, loaded, started = [0.0], [], []
    monkeypatch.setattr(_row_checks.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(_row_checks, "_check_in_processes", in_processes)
    monkeypatch.setattr(_row_checks, "_START_SECONDS", others_take)
    assert len(list(_row_checks.check_chunks(chunks(6), checker, 2))) == 6
    assert not started
    clock, loaded = [0.0], []
    assert len(list(_row_checks.check_chunks(chunks(20), checker, 2))) == 20
    assert bool(started) == shared


def test_bytes_inside_rows_do_not_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(_blobs, "_IN_MEMORY_BYTES", 1000)
    source = as_parquet(tmp_path)
    splits = load_splits(DataSpec(train=(source,), max_bad_share=0.1))
    sources = [one.images[0].source for one in (*splits.train, *splits.validation)]
    assert all(isinstance(one, _blobs.StoredBlob) for one in sources) and len({id(one.store) for one in sources}) == 1
    assert sources[0].store._file._rolled
    pictures = {one["images"][0]["bytes"] for one in embedded(50)}
    assert {one.read() for one in sources} == pictures
