import re

import pytest

from marslora.core.runs import Failure, Prepared
from marslora.core.spec import DataSpec, ModelSpec, PluginSpec, PrepareSpec
from marslora.engine.prepare import prepare


def prepared(world, optimizer=PluginSpec(name="adamw"), **data):
    events = []
    data = {"train": (str(world / "train.jsonl"),), "validation": (str(world / "validation.jsonl"),), **data}
    asked = PrepareSpec(
        model=ModelSpec(path=str(world / "model")),
        data=DataSpec(**data),
        optimizer=optimizer,
        batch_size=8,
        cache_folder=str(world / "cache"),
    )
    prepare(asked, events.append)
    return events[-1]


def test_the_parts_and_the_rows_are_told(world):
    found = prepared(world)
    assert isinstance(found, Prepared)
    assert [part.name for part in found.info.parts] == ["vision", "projector", "language"]
    assert (found.data.num_train, found.data.num_validation, found.data.num_test) == (40, 12, 0)
    assert 1 < found.data.answer_tokens < found.data.tokens
    assert found.info.part("vision").gradient_norm > 0
    assert found.cost.seconds > 0 and found.cost.peak_bytes > 0
    again = prepared(world)
    assert again.model_copy(update={"cost": found.cost}) == found


def test_a_missing_file_is_a_failure(world):
    found = prepared(world, train=("nowhere.jsonl",))
    assert isinstance(found, Failure) and "nowhere.jsonl" in found.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"beta1": 0.9},
            r"adamw .* no option \['beta1'\]. Its options are \['lr', 'weight_decay', 'b_ratio', 'betas', 'eps'\]",
        ),
        (
            {"betas": 0.9},
            r"adamw cannot have the options {'betas': 0.9}: `betas` of AdamW must be a list of 2 numbers, found 0.9",
        ),
    ],
)
def test_wrong_options_of_the_optimizer_are_said_first(world, options, message):
    found = prepared(world, PluginSpec(name="adamw", options=options), train=("nowhere.jsonl",))
    assert isinstance(found, Failure) and found.error == "ConfigError"
    assert re.search(message, found.message)


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_rows_held_out_are_not_trained_on(world, share):
    found = prepared(world, validation=(), validation_share=share)
    assert found.data.num_train + found.data.num_validation == 40
    assert found.data.num_validation == pytest.approx(40 * share, abs=8)
