"""Tokens that a model cannot read are named, and so are tokens whose embeddings were never trained."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import marslora
from marslora.core.errors import DataError
from marslora.core.spec import DataSpec, ModelSpec
from marslora.core.vocabulary import Vocabulary, read_vocabulary
from marslora.data.rows import load_encoded_splits
from marslora.data.splits import register_rows
from marslora.demo.model import embedded_folder
from marslora.models.loading import load_processor
from marslora.models.tokens import find_fresh_rows, read_vocabulary_of, vocabulary_of_model
from tests.helpers.tiny_models import TINY, build

NEW = [f"<loc{number}>" for number in range(4)]


def row(number, answer):
    return {"messages": [{"role": "user", "content": f"where {number} ?"}, {"role": "assistant", "content": answer}]}


def make_model(folder, *, resize=True, mean_resizing=True):
    """The embedded model with four more tokens."""
    processor = AutoProcessor.from_pretrained(embedded_folder())
    processor.tokenizer.add_tokens(NEW)
    if not resize:
        shutil.copytree(embedded_folder(), folder)
    else:
        model = AutoModelForImageTextToText.from_pretrained(embedded_folder())
        model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=mean_resizing)
        model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, [len(processor.tokenizer) - 4 + number for number in range(4)]


@pytest.mark.parametrize("name", TINY)
def test_the_configuration_says_how_many_tokens_the_model_reads(name):
    model, batch = build(name)
    for vocabulary in (read_vocabulary_of(model.config), vocabulary_of_model(model)):
        assert vocabulary.find_beyond(batch["input_ids"].unique().tolist()) == []
        assert vocabulary.num_rows <= model.get_input_embeddings().num_embeddings


def test_ids_beyond_the_embedding_are_found_and_placeholders_are_none():
    vocabulary = Vocabulary(num_rows=10, placeholders=(12,))
    assert vocabulary.find_beyond([3, 9, 12]) == vocabulary.find_beyond([]) == []
    assert vocabulary.find_beyond([13, 10, 3, 13]) == [10, 13]


def test_a_row_with_a_token_beyond_the_embedding_is_bad_and_the_others_go_on(tmp_path):
    folder, ids = make_model(tmp_path / "model", resize=False)
    processor = load_processor(ModelSpec(path=str(folder)))
    assert read_vocabulary(processor).num_rows == ids[0]
    rows = [*(row(number, "red") for number in range(8)), row(8, f"red {NEW[1]}")]
    name = register_rows("beyond", rows)
    data = DataSpec(train=(name,), validation=(name,), max_bad_share=0.5)
    encoded = load_encoded_splits(data, processor, str(tmp_path / "cache"))
    (bad,) = encoded.train.skipped
    assert len(encoded.train) == 8 and bad.row == 9
    assert f"the token '<loc1>' has the id {ids[1]}, and the model's embedding has {ids[0]} rows" in bad.reason
    with pytest.raises(DataError, match="'<loc1>' has the id"):
        load_encoded_splits(data.model_copy(update={"max_bad_share": 0.0}), processor, str(tmp_path / "cache"))


def test_the_check_of_data_and_the_search_refuse_the_same_row(tmp_path):
    from typer.testing import CliRunner

    from marslora.cli import app

    folder, _ = make_model(tmp_path / "model", resize=False)
    lines = [json.dumps(row(0, "red")), json.dumps(row(1, NEW[2]))]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    done = CliRunner().invoke(app, ["data", "check", str(tmp_path / "rows.jsonl"), "--model", str(folder), "--json"])
    (bad,) = json.loads(done.stdout)["bad"]
    assert done.exit_code == 1 and bad["row"] == 2 and "'<loc2>' has the id" in bad["reason"]


def test_padding_beyond_the_embedding_is_replaced(tmp_path):
    folder, ids = make_model(tmp_path / "model", resize=False)
    processor = load_processor(ModelSpec(path=str(folder)))
    processor.tokenizer.pad_token = NEW[0]
    name = register_rows("padded", [row(0, "red"), row(1, "red green blue red green blue")])
    data = DataSpec(train=(name,), validation=(name,))
    encoded = load_encoded_splits(data, processor, str(tmp_path / "cache")).train
    assert int(encoded.batch([0, 1])["input_ids"].max()) < ids[0]


@pytest.mark.parametrize("mean_resizing", [True, False])
def test_fresh_rows_are_told_from_trained_ones(tmp_path, mean_resizing):
    torch.manual_seed(0)
    folder, ids = make_model(tmp_path / "model", mean_resizing=mean_resizing)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    every = range(len(tokenizer))
    assert find_fresh_rows(model, every, set(tokenizer.added_tokens_decoder)) == ids
    assert find_fresh_rows(model, every[: ids[0]], set(tokenizer.added_tokens_decoder)) == []
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = 0
    assert find_fresh_rows(model, every, ()) == ([7, *ids] if mean_resizing else [7])


def test_nothing_is_said_of_a_model_that_was_never_trained():
    model, _ = build("llava")
    every = range(model.get_input_embeddings().num_embeddings)
    assert find_fresh_rows(model, every, set(every)) == []


def test_fresh_rows_that_the_rows_use_are_named_with_the_option(tmp_path):
    folder, ids = make_model(tmp_path / "model")
    info = marslora.inspect(model=folder, train=[row(number, NEW[number % 2]) for number in range(8)])
    (warning,) = [each for each in info.warnings if "never trained" in each]
    assert f"'<loc0>' ({ids[0]}), '<loc1>' ({ids[1]})" in warning
    assert warning.endswith(f"--trainable-token-indices {ids[0]},{ids[1]}")
    plain = marslora.inspect(model=folder, train=[row(number, "red") for number in range(8)])
    assert not any("never trained" in each for each in plain.warnings)
