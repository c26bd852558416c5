"""Rows in the layouts of other tools hold the same turns, and name pictures that are there."""

import json
from pathlib import Path

import pytest
from PIL import Image

from marslora.core.errors import DataError
from marslora.core.spec import DataSpec, RowsSpec
from marslora.data.export import write_rows
from marslora.data.splits import load_splits, register_rows

TOOL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}


def turns(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture
def data(tmp_path):
    """Eight rows: pictures in files, in memory, two in one row, none."""
    pictures = [Image.new("RGB", (8, 8), (30 * n, 0, 0)) for n in range(8)]
    pictures[0].save(tmp_path / "red.png")
    rows = [{"messages": turns(f"<image>how red {n}?", str(n)), "images": [pictures[n]]} for n in range(1, 6)]
    rows.append({"messages": turns("how red?", "0"), "images": [str(tmp_path / "red.png")]})
    rows.append({"messages": turns("<image> or <image>?", "one"), "images": pictures[6:8]})
    rows.append({"messages": turns("what?", "nothing") + turns("why?", "so")})
    return DataSpec(train=(register_rows("export", rows),), validation_share=0.25)


def export(data, folder, *layouts):
    spec = RowsSpec(
        data=data,
        folders=tuple((str(folder / layout), layout) for layout in layouts),
        media_folder=str(folder / "media"),
    )
    write_rows(spec, lambda _: None)
    return {
        (layout, split): [json.loads(line) for line in (folder / layout / f"{split}.jsonl").read_text().splitlines()]
        for layout in layouts
        for split in ("train", "validation")
    }


def test_every_layout_has_the_rows_of_the_split(data, tmp_path):
    written = export(data, tmp_path, "tagged", "parts", "prompt")
    splits = load_splits(data)
    for (layout, split), rows in written.items():
        examples = getattr(splits, split)
        assert len(rows) == len(examples) > 0
        for row, example in zip(rows, examples, strict=True):
            check = {"tagged": check_tagged, "parts": check_parts, "prompt": check_prompt}[layout]
            assert len(check(row, example)) == len(example.images)


def opened(paths):
    paths = list(paths)
    for path in paths:
        assert Path(path).is_absolute()
        Image.open(path).load()
    return paths


def words(message):
    return "".join(part.get("text", "") for part in message["content"])


def check_tagged(row, example):
    assert [turn["content"].replace("<image>", "") for turn in row["messages"]] == list(map(words, example.messages))
    assert sum(turn["content"].count("<image>") for turn in row["messages"]) == len(example.images)
    return opened(row.get("images", []))


def check_parts(row, example):
    assert list(map(words, row["messages"])) == list(map(words, example.messages))
    return opened(part["path"] for turn in row["messages"] for part in turn["content"] if part["type"] == "image")


def check_prompt(row, example):
    assert row["prompt"] + row["completion"] == [dict(message) for message in example.messages]
    assert len(row["completion"]) == 1
    return opened(row["images"])


def test_pictures_that_are_the_same_are_written_once(data, tmp_path):
    export(data, tmp_path, "tagged", "parts")
    assert len(list((tmp_path / "media").iterdir())) == 7


def test_rows_that_call_tools_are_refused_by_name(tmp_path):
    row = {"messages": [{"role": "user", "content": "a"}, TOOL, {"role": "tool", "content": "b"}, *turns("c", "d")[1:]]}
    data = DataSpec(train=(register_rows("tools", [row, row]),), validation_share=0.5)
    with pytest.raises(DataError, match=r"calls tools.*--no-rows"):
        export(data, tmp_path, "tagged")
