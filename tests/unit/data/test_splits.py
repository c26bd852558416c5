"""Files in, splits out: nothing bad gets in unnoticed, nothing good is lost."""

from __future__ import annotations

import hashlib
import itertools
import json

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from marslora.core.errors import DataError
from marslora.core.spec import DataSpec
from marslora.data._example_store import ExampleColumns
from marslora.data._splitting import _group_by_content
from marslora.data.splits import load_splits, register_rows
from tests.unit.data.conftest import picture, row, write_lines


def rows(count: int = 10) -> list[dict]:
    return [row(f"what is {index}?", f"it is {index}", f"{index % 10}.png") for index in range(count)]


def everything(splits) -> list[str]:
    return sorted(example.messages[1]["content"][0]["text"] for example in (*splits.train, *splits.validation))


def as_jsonl(folder):
    return write_lines(folder / "rows.jsonl", rows())


def as_json(folder):
    (folder / "rows.json").write_text(json.dumps(rows()))
    return str(folder / "rows.json")


def embedded(folder) -> list[dict]:
    return [
        {**one, "images": [{"bytes": (folder / one["images"][0]).read_bytes(), "path": one["images"][0]}]}
        for one in rows()
    ]


def plain(messages):
    return [
        {"role": one["role"], "content": one["content"] if isinstance(one["content"], str) else "?"} for one in messages
    ]


def as_parquet(folder):
    table = pa.Table.from_pylist([{**one, "messages": plain(one["messages"])} for one in embedded(folder)])
    parquet.write_table(table, folder / "rows.parquet")
    return str(folder / "rows.parquet")


def as_shards(folder):
    (folder / "hub" / "data").mkdir(parents=True)
    values = [{**one, "messages": plain(one["messages"])} for one in embedded(folder)]
    for index, part in enumerate((values[:4], values[4:])):
        parquet.write_table(pa.Table.from_pylist(part), folder / "hub" / "data" / f"train-{index:05}.parquet")
    parquet.write_table(pa.Table.from_pylist(values[:1]), folder / "hub" / "data" / "test-00000.parquet")
    return str(folder / "hub")


def dataset(folder) -> datasets.Dataset:
    features = datasets.Features(
        {
            "messages": datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")}),
            "images": datasets.List(datasets.Image()),
        }
    )
    return datasets.Dataset.from_list(
        [{**one, "messages": plain(one["messages"])} for one in embedded(folder)], features=features
    )


def as_dataset_of_parts(folder):
    """The library fills what a part does not have with None."""
    turn = {"role": datasets.Value("string"), "content": datasets.List(PART)}
    features = datasets.Features({"messages": datasets.List(turn), "images": datasets.List(datasets.Image())})
    values = embedded(folder)
    for one in values:
        one["messages"][1]["content"] = [{"type": "text", "text": one["messages"][1]["content"]}]
        for message in one["messages"]:
            message["content"] = [{"text": None, **part} for part in message["content"]]
    datasets.Dataset.from_list(values, features=features).save_to_disk(folder / "parts")
    return str(folder / "parts")


PART = {"type": datasets.Value("string"), "text": datasets.Value("string")}


def as_dataset_folder(folder):
    dataset(folder).save_to_disk(folder / "set")
    return str(folder / "set")


def as_dataset_dict(folder):
    datasets.DatasetDict(train=dataset(folder)).save_to_disk(folder / "dict")
    return str(folder / "dict")


def as_memory(folder):
    return register_rows("rows", [{**one, "images": [picture(index)]} for index, one in enumerate(rows())])


def as_dataset_in_memory(folder):
    return register_rows("dataset", dataset(folder))


def as_stream(folder):
    return register_rows("stream", dataset(folder).to_iterable_dataset())


def as_generator(folder):
    return register_rows("generator", (one for one in embedded(folder)))


@pytest.mark.parametrize(
    "make",
    [
        as_jsonl,
        as_json,
        as_parquet,
        as_shards,
        as_dataset_of_parts,
        as_dataset_folder,
        as_dataset_dict,
        as_memory,
        as_dataset_in_memory,
        as_stream,
        as_generator,
    ],
)
def test_every_kind_of_source_gives_the_same_rows(make, folder):
    splits = load_splits(DataSpec(train=(make(folder),), validation_share=0.2))
    assert everything(splits) == sorted(f"it is {index}" for index in range(10))
    assert (splits.report.num_train, splits.report.num_validation, splits.report.num_bad) == (8, 2, 0)
    for example in splits.train:
        seed = int(example.messages[1]["content"][0]["text"].split()[-1])
        assert example.images[0].open().tobytes() == picture(seed).tobytes()


def test_several_files_are_one_set(folder):
    first = write_lines(folder / "a.jsonl", rows()[:6])
    second = write_lines(folder / "b.jsonl", rows()[6:])
    assert len(everything(load_splits(DataSpec(train=(first, second))))) == 10


def test_the_image_folder_can_be_named(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    spec = DataSpec(train=(write_lines(elsewhere / "rows.jsonl", rows()),), image_folder=str(folder))
    assert load_splits(spec).report.num_bad == 0


def test_few_bad_rows_are_skipped_and_counted(folder):
    source = write_lines(folder / "rows.jsonl", [*rows(10), row("?", "x", "gone.png"), "no object"])
    report = load_splits(DataSpec(train=(source,), max_bad_share=0.2)).report
    assert (report.num_train + report.num_validation, report.num_bad) == (10, 2)
    assert [(bad.row, bad.source) for bad in report.bad] == [(11, source), (12, source)]
    assert "gone.png" in str(report.bad[0]) and "JSON object" in report.bad[1].reason


def test_many_bad_rows_stop_with_file_number_reason_and_way_out(folder):
    source = write_lines(folder / "rows.jsonl", [*rows(3), row("?", "x", "gone.png")])
    with pytest.raises(DataError) as error:
        load_splits(DataSpec(train=(source,)))
    message = str(error.value)
    assert all(word in message for word in ("1 of 4", source, "row 4", "gone.png", "does not exist", "max_bad_share"))
    assert "\n" not in message


def test_lines_are_numbered_as_an_editor_numbers_them(folder):
    path = folder / "rows.jsonl"
    path.write_text("\n\n{broken\n")
    with pytest.raises(DataError, match=r"row 3: the line is not valid JSON"):
        load_splits(DataSpec(train=(str(path),)))


def missing(folder):
    return str(folder / "nowhere.jsonl"), "does not exist"


def strange_ending(folder):
    (folder / "rows.xlsx").write_text("a,b")
    return str(folder / "rows.xlsx"), r"ending of .* found `\.xlsx`"


def empty_file(folder):
    return write_lines(folder / "empty.jsonl", []), "at least one row"


def empty_folder(folder):
    (folder / "empty").mkdir()
    return str(folder / "empty"), "neither"


def no_array(folder):
    (folder / "rows.json").write_text("{}")
    return str(folder / "rows.json"), "JSON array"


def lines_called_json(folder):
    (folder / "rows.json").write_text("{}\n{}\n")
    return str(folder / "rows.json"), r"call it \.jsonl"


def no_parquet(folder):
    (folder / "rows.parquet").write_text("no")
    return str(folder / "rows.parquet"), "is not a Parquet file"


def other_split(folder):
    datasets.DatasetDict(test=dataset(folder)).save_to_disk(folder / "dict")
    return str(folder / "dict"), "no split called `train`"


def not_registered(folder):
    return "memory:nobody", "No rows called `nobody`"


def one_row(folder):
    return write_lines(folder / "one.jsonl", rows(1)), "at least 2 training rows"


@pytest.mark.parametrize(
    "make",
    [
        missing,
        strange_ending,
        empty_file,
        empty_folder,
        no_array,
        lines_called_json,
        no_parquet,
        other_split,
        not_registered,
        one_row,
    ],
)
def test_what_cannot_be_read_is_one_clear_error(make, folder):
    source, message = make(folder)
    with pytest.raises(DataError, match=message) as error:
        load_splits(DataSpec(train=(source,)))
    assert "\n" not in str(error.value)


def test_no_picture_stands_on_both_sides(folder):
    splits = load_splits(DataSpec(train=(write_lines(folder / "rows.jsonl", rows(100)),), validation_share=0.3))
    sides = [
        {image.digest for example in side for image in example.images} for side in (splits.train, splits.validation)
    ]
    assert splits.report.num_validation == 30 and not sides[0] & sides[1]


def test_pictures_that_hang_together_stay_together(folder):
    chained = [row("?", str(index), f"{index}.png", f"{index + 1}.png") for index in range(4)]
    alone = [row("?", "alone", f"{index}.png") for index in range(6, 10)]
    spec = DataSpec(train=(write_lines(folder / "rows.jsonl", chained + alone),), validation_share=0.25)
    splits = load_splits(spec)
    assert [example.messages[1]["content"][0]["text"] for example in splits.validation] == ["alone", "alone"]


def test_where_all_rows_share_a_picture_rows_are_split(folder):
    shared = [row(f"{index}?", str(index), "0.png") for index in range(20)]
    splits = load_splits(DataSpec(train=(write_lines(folder / "rows.jsonl", shared),), validation_share=0.2))
    assert (splits.report.num_train, splits.report.num_validation) == (16, 4)
    assert any("training rows show too" in warning for warning in splits.report.warnings)


def test_the_split_follows_content_and_seed_not_the_order_of_lines(folder):
    forward = write_lines(folder / "a.jsonl", rows(10))
    backward = write_lines(folder / "b.jsonl", rows(10)[::-1])

    def held_out(source, seed=0):
        spec = DataSpec(train=(source,), validation_share=0.3, seed=seed)
        return {example.digest for example in load_splits(spec).validation}

    assert held_out(forward) == held_out(backward)
    assert held_out(forward) != held_out(forward, seed=1)


def test_named_splits_are_used_and_the_test_rows_kept_whole(folder):
    train = write_lines(folder / "train.jsonl", rows(6))
    validation = write_lines(folder / "val.jsonl", rows(10)[6:8])
    test = write_lines(folder / "test.jsonl", rows(10)[8:])
    splits = load_splits(DataSpec(train=(train,), validation=(validation,), test=(test,), max_validation=1))
    report = splits.report
    assert (report.num_train, report.num_validation, report.num_test) == (6, 1, 2)
    assert not report.warnings


def test_training_rows_among_the_test_rows_are_noticed(folder):
    source = write_lines(folder / "rows.jsonl", rows(6))
    report = load_splits(DataSpec(train=(source,), validation=(source,))).report
    assert any("measure memorisation" in warning for warning in report.warnings)


def test_fewer_examples_are_a_subset_of_more(folder):
    source = write_lines(folder / "rows.jsonl", rows(10))

    def kept(limit):
        spec = DataSpec(train=(source,), validation=(source,), max_examples=limit)
        return {example.digest for example in load_splits(spec).train}

    assert kept(3) < kept(7) < kept(None)
    assert len(kept(3)) == 3


def test_the_fingerprint_follows_pictures_and_text(folder):
    source = write_lines(folder / "rows.jsonl", rows(10))
    before = load_splits(DataSpec(train=(source,))).report.fingerprint
    assert load_splits(DataSpec(train=(source,))).report.fingerprint == before
    picture(77).save(folder / "5.png")
    assert load_splits(DataSpec(train=(source,))).report.fingerprint != before


def test_unchanged_files_are_read_once(folder):
    source = write_lines(folder / "rows.jsonl", rows(10))
    first = load_splits(DataSpec(train=(source,)))
    assert load_splits(DataSpec(train=(source,))) is first
    assert load_splits(DataSpec(train=(source,), seed=1)) is not first
    write_lines(folder / "rows.jsonl", rows(9))
    assert load_splits(DataSpec(train=(source,))).report.num_train == 8


def test_rows_registered_again_are_read_again(folder):
    for count in (10, 5):
        source = register_rows("again", [{**one, "images": [picture(index)]} for index, one in enumerate(rows(count))])
        assert len(everything(load_splits(DataSpec(train=(source,))))) == count


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 12), max_size=3)), min_size=1, max_size=25))
@settings(deadline=None)
def test_rows_are_grouped_by_what_they_share_directly_or_through_others(rows):
    """A row without media is known by its text, the others by their media."""
    digests = [hashlib.md5(b"%d %r" % (text, media)).digest() for text, media in rows]
    contents = [set(media) if media else {digest} for (_, media), digest in zip(rows, digests, strict=True)]
    group = list(range(len(rows)))
    for _ in rows:
        for a, b in itertools.combinations(range(len(rows)), 2):
            if contents[a] & contents[b]:
                group[a] = group[b] = min(group[a], group[b])
    media = [hashlib.md5(bytes([each])).digest() for _, own in rows for each in own]
    columns = ExampleColumns(
        digest_N=np.array(digests, "V16"),
        media_M=np.array(media, "V16"),
        num_media_N=np.array([len(own) for _, own in rows]),
        notes=[],
        note_N=np.zeros(len(rows), np.int64),
    )
    assert _group_by_content(columns).tolist() == group
