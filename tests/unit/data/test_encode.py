"""What a model reads is what its own processor makes, with labels on answers alone, from any chat template."""

from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import pytest
import torch

from marslora.core.errors import DataError, ModelError
from marslora.core.spec import DataSpec
from marslora.data import _build
from marslora.data.encode import encode
from marslora.data.splits import load_splits, register_rows
from tests.helpers import tiny_processors as tiny
from tests.helpers.tiny_models import build
from tests.unit.data.conftest import picture, row

IGNORED = -100
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
PROCESSORS = [
    tiny.llava_processor,
    tiny.llava_next_processor,
    tiny.idefics3_processor,
    tiny.mllama_processor,
    tiny.gemma3_processor,
    pytest.param(
        tiny.qwen2_vl_processor, marks=pytest.mark.skipif(not HAS_TORCHVISION, reason="its processor needs torchvision")
    ),
]
TEMPLATES = {"compared": tiny.CHATML, "marked": tiny.CHATML_MARKED}


def examples_of(rows, name="encode"):
    held = register_rows(name, rows)
    return load_splits(DataSpec(train=(held,), validation=(held,))).train


def mixed_rows():
    """One picture, two, none, a wide one, and two turns with a picture each."""
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "first?"}]},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "second?"}]},
        {"role": "assistant", "content": "two"},
    ]
    return [
        *(row(f"what {index}?", f"it is {index * 7}", picture(index)) for index in range(5)),
        row("two?", "yes and no", picture(5), picture(6)),
        row("wide?", "yes", picture(7, 96, 48)),
        row("no picture?", "none"),
        {"messages": turns, "images": [picture(8), picture(9, 60, 30)]},
    ]


def answers(encoded, processor, index):
    labels = encoded.texts["labels"][index]
    return processor.tokenizer.decode(labels[labels != IGNORED])


def text_of(processor, example):
    return processor.apply_chat_template(list(example.messages), tokenize=False)


@pytest.mark.parametrize("make", PROCESSORS)
def test_batches_are_what_the_processor_itself_makes(make):
    processor, examples = make(), examples_of(mixed_rows())
    got = encode(examples, processor).batch(range(len(examples)))
    expected = processor(
        text=[text_of(processor, example) for example in examples],
        images=[[image.open() for image in example.images] for example in examples],
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    # Mllama's processor writes ones for what is padded or missing; nothing attends there, so ours are zeros
    padded = {"cross_attention_mask", "aspect_ratio_mask"}
    assert set(got) == {*expected, "labels"}
    for name in set(expected) - padded:
        assert torch.equal(got[name], expected[name]), name
    for name in padded & set(expected):
        assert got[name].shape == expected[name].shape
        assert ((got[name] == expected[name]) | (got[name] == 0)).all(), name


@pytest.mark.parametrize("make", PROCESSORS)
def test_labels_are_every_answer_and_its_end_and_nothing_else(make):
    processor, examples = make(), examples_of(mixed_rows())
    encoded = encode(examples, processor)
    for index in range(5):
        assert answers(encoded, processor, index) == f"it is {index * 7}<|im_end|>"
    assert answers(encoded, processor, 7) == "none<|im_end|>"
    assert answers(encoded, processor, 8) == "one<|im_end|>two<|im_end|>"
    for index in range(len(encoded)):
        labels, ids = encoded.texts["labels"][index], encoded.texts["input_ids"][index]
        assert np.array_equal(labels[labels != IGNORED], ids[labels != IGNORED])
        assert encoded.num_answer_tokens[index] == np.count_nonzero(labels != IGNORED)


@pytest.mark.parametrize("template", TEMPLATES)
def test_both_ways_to_find_answers_agree(template):
    processor, examples = tiny.llava_processor(TEMPLATES[template]), examples_of(mixed_rows())
    encoded, other = encode(examples, processor), encode(examples, tiny.llava_processor())
    for index in range(len(examples)):
        assert np.array_equal(encoded.texts["labels"][index], other.texts["labels"][index])


def test_a_template_without_an_end_gets_one():
    processor = tiny.llava_processor(tiny.LLAVA_15)
    encoded = encode(examples_of(mixed_rows()), processor)
    assert answers(encoded, processor, 1) == " it is 7</s>"
    assert answers(encoded, processor, 8) == " one two</s>"


@pytest.mark.parametrize("template", [tiny.CHATML, "<s>" + tiny.CHATML])
def test_the_beginning_is_marked_once(template):
    processor = tiny.llava_processor(template, adds_bos=True)
    encoded = encode(examples_of(mixed_rows()), processor)
    for index in range(len(encoded)):
        assert (encoded.texts["input_ids"][index] == processor.tokenizer.bos_token_id).sum() == 1
    assert answers(encoded, processor, 0) == "it is 0<|im_end|>"


FORGETFUL = (
    "{% for message in messages %}{% if message['role'] == 'assistant' and not loop.last %}(left out)"
    "{% else %}{{ message['role'] }}: {{ message['content'][-1]['text'] }}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_a_template_that_rewrites_earlier_answers_is_refused_with_the_way_out():
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "abcd", strict=True)]
    with pytest.raises(DataError, match=r"rewrites earlier turns.*generation"):
        encode(examples_of([{"messages": turns}]), tiny.llava_processor(FORGETFUL))


def test_a_processor_without_a_template_is_refused_with_the_way_out():
    with pytest.raises(ModelError, match=r"no chat template.*chat_template\.jinja"):
        encode(examples_of([row("?", "x")]), tiny.llava_processor(template=None))


def test_padding_is_on_the_right_and_ignored():
    processor = tiny.llava_processor()
    processor.tokenizer.padding_side = "left"
    encoded = encode(examples_of(mixed_rows()), processor)
    batch = encoded.batch([7, 8])
    short = int(encoded.num_tokens[7])
    assert batch["attention_mask"][0].tolist() == [1] * short + [0] * (batch["input_ids"].shape[1] - short)
    assert (batch["input_ids"][0, short:] == processor.tokenizer.pad_token_id).all()
    assert (batch["labels"][0, short:] == IGNORED).all()
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "input_ids": torch.int64,
        "attention_mask": torch.int64,
        "labels": torch.int64,
        "pixel_values": torch.float32,
    }


def test_a_batch_has_the_loss_of_its_rows():
    model, _ = build("llava")
    processor = tiny.llava_processor()
    model.config.image_token_id = processor.image_token_id
    encoded = encode(examples_of(mixed_rows()), processor)
    counts = encoded.num_answer_tokens
    with torch.no_grad():
        alone = [float(model(**encoded.batch([index])).loss) for index in range(len(encoded))]
        together = float(model(**encoded.batch(range(len(encoded)))).loss)
    assert together == pytest.approx(np.average(alone, weights=counts), rel=1e-5)


def test_an_order_and_repeats_are_followed():
    encoded = encode(examples_of(mixed_rows()), tiny.llava_processor())
    batch = encoded.batch(np.array([5, 0, 0]))
    whole = encoded.batch(range(9))["pixel_values"]
    assert torch.equal(batch["pixel_values"], torch.stack([whole[5], whole[6], whole[0], whole[0]]))


def test_equal_pictures_are_kept_once():
    rows = [row(f"{index}?", "x", picture(index % 3)) for index in range(12)]
    encoded = encode(examples_of(rows), tiny.llava_processor())
    assert len(encoded.pictures["pixel_values"]) == 3
    assert len(set(encoded.picture_of[[0, 3, 6, 9]])) == 1


def test_long_rows_are_refused_not_cut():
    rows = [row("?" * 5, "x", picture(index)) for index in range(9)] + [row("?" * 500, "x", picture(99))]
    examples = examples_of(rows)
    encoded = encode(examples, tiny.llava_processor(), max_length=100, max_bad_share=0.1)
    assert list(encoded.rows) == list(range(9))
    assert encoded.skipped[0].row == 10 and "`max_length` 100" in encoded.skipped[0].reason
    assert encoded.num_tokens.max() <= 100
    with pytest.raises(DataError, match=r"1 of 10 .*row 10: the row has \d+ tokens"):
        encode(examples, tiny.llava_processor(), max_length=100)


def test_a_picture_that_breaks_off_is_refused_by_its_row(folder):
    whole = (folder / "0.png").read_bytes()
    rows = [
        row("?", "x", {"bytes": whole}),
        row("?", "y", {"bytes": whole[: len(whole) // 2]}),
        row("?", "z", picture(3)),
    ]
    encoded = encode(examples_of(rows), tiny.llava_processor(), max_bad_share=0.5)
    assert list(encoded.rows) == [0, 2]
    assert encoded.skipped[0].row == 2 and "cannot be decoded" in encoded.skipped[0].reason


def test_a_row_that_the_processor_refuses_is_named_and_the_others_kept(monkeypatch):
    processor = tiny.llava_processor()
    rows = [row(f"what {index}?", "x", picture(index)) for index in range(4)] + [row("bad?", "x", picture(9))]
    call = type(processor).__call__

    def refusing(self, images=None, text=None, **kwargs):
        if any("bad?" in one for one in text):
            raise ValueError("cannot read this")
        return call(self, images=images, text=text, **kwargs)

    monkeypatch.setattr(type(processor), "__call__", refusing)
    encoded = encode(examples_of(rows), processor, max_bad_share=0.5)
    assert list(encoded.rows) == [0, 1, 2, 3]
    assert "cannot read this" in encoded.skipped[0].reason


def test_rows_are_processed_one_by_one_where_batches_differ(monkeypatch):
    """A processor whose output for a row depends on its neighbours must not be batched."""
    processor = tiny.llava_processor()
    examples = examples_of([row(f"{index}?", "x", picture(index)) for index in range(4)])
    expected = encode(examples, processor).batch(range(4))
    call = type(processor).__call__

    def entangled(self, images=None, text=None, **kwargs):
        output = call(self, images=images, text=text, **kwargs)
        output["pixel_values"] = output["pixel_values"] + (len(text) - 1)
        return output

    monkeypatch.setattr(type(processor), "__call__", entangled)
    got = encode(examples, processor).batch(range(4))
    assert torch.equal(got["pixel_values"], expected["pixel_values"])


def test_progress_counts_every_row():
    seen = []
    encode(examples_of(mixed_rows()), tiny.llava_processor(), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (9, 9) and seen == sorted(seen)


def unused(*args, **kwargs):
    raise AssertionError("the rows were processed again")


def same_batch(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_second_call_reads_the_cache(tmp_path, monkeypatch):
    examples = examples_of(mixed_rows())
    first = encode(examples, tiny.llava_processor(), cache_folder=tmp_path)
    monkeypatch.setattr(_build, "RowProcessor", unused)
    second = encode(examples, tiny.llava_processor(), cache_folder=tmp_path)
    assert first.digest == second.digest
    assert same_batch(first.batch(range(9)), second.batch(range(9)))
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


@pytest.mark.parametrize("change", ["row", "template", "size", "max_length"])
def test_whatever_changes_the_result_changes_the_name(change, tmp_path):
    rows = mixed_rows()
    before = encode(examples_of(rows), tiny.llava_processor(), cache_folder=tmp_path)
    if change == "row":
        rows[0] = row("what 0?", "it is 1", picture(0))
    processor = tiny.llava_processor(
        template=tiny.LLAVA_15 if change == "template" else tiny.CHATML, size=56 if change == "size" else 28
    )
    after = encode(
        examples_of(rows), processor, cache_folder=tmp_path, max_length=99 if change == "max_length" else None
    )
    assert before.folder != after.folder


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def shorten(path):
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize("damage", [flip, shorten, lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["pictures.pixel_values.bin", "texts.labels.bin"])
def test_a_damaged_cache_is_made_again(tmp_path, damage, name):
    examples = examples_of(mixed_rows())
    first = encode(examples, tiny.llava_processor(), cache_folder=tmp_path)
    expected = {name: tensor.clone() for name, tensor in first.batch(range(9)).items()}
    damage(first.folder / name)
    assert same_batch(encode(examples, tiny.llava_processor(), cache_folder=tmp_path).batch(range(9)), expected)


@pytest.mark.parametrize("name", ["index.json", "texts.labels.bin.shapes.npy"])
def test_a_cache_without_its_index_is_made_again(tmp_path, name):
    examples = examples_of(mixed_rows())
    first = encode(examples, tiny.llava_processor(), cache_folder=tmp_path)
    (first.folder / name).write_bytes(b"")
    assert len(encode(examples, tiny.llava_processor(), cache_folder=tmp_path)) == 9


def test_a_killed_writer_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    examples = examples_of(mixed_rows())
    with monkeypatch.context() as patch:
        patch.setattr(_build, "publish_folder", unused)
        with pytest.raises(AssertionError):
            encode(examples, tiny.llava_processor(), cache_folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_writers_at_once_end_with_one_folder(tmp_path, monkeypatch):
    examples = examples_of(mixed_rows())
    done = encode(examples, tiny.llava_processor(), cache_folder=tmp_path / "other")
    real = _build.publish_folder

    def overtaken(temporary, final):
        shutil.copytree(done.folder, final)
        return real(temporary, final)

    monkeypatch.setattr(_build, "publish_folder", overtaken)
    encoded = encode(examples, tiny.llava_processor(), cache_folder=tmp_path / "mine")
    assert same_batch(encoded.batch(range(9)), done.batch(range(9)))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [done.folder.name]


def test_without_a_cache_folder_nothing_stays_behind():
    encoded = encode(examples_of(mixed_rows()), tiny.llava_processor())
    folder = encoded.folder
    assert folder.is_dir()
    del encoded
    assert not folder.exists()
