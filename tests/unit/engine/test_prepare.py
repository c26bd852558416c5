import re

import pytest

from marslora.core.runs import Failure, Prepared
from marslora.core.spec import DataSpec, ModelSpec, PluginSpec, PrepareSpec
from marslora.engine.prepare import prepare


def run_prepare(world, optimizer=PluginSpec(name="adamw"), **data):
    events = []
    data = {"train": (str(world / "train.jsonl"),), "validation": (str(world / "validation.jsonl"),), **data}
    spec = PrepareSpec(
        model=ModelSpec(path=str(world / "model")),
        data=DataSpec(**data),
        optimizer=optimizer,
        batch_size=8,
        cache_folder=str(world / "cache"),
    )
    prepare(spec, events.append)
    return events[-1]


def test_the_parts_and_the_rows_are_reported(world):
    answer = run_prepare(world)
    assert isinstance(answer, Prepared)
    assert [part.name for part in answer.info.parts] == ["vision", "projector", "language"]
    assert (answer.data.num_train, answer.data.num_validation, answer.data.num_test) == (40, 12, 0)
    assert 1 < answer.data.answer_tokens < answer.data.tokens
    assert answer.info.part("vision").gradient_norm > 0
    assert answer.cost.seconds > 0 and answer.cost.peak_bytes > 0
    again = run_prepare(world)
    assert again.model_copy(update={"cost": answer.cost}) == answer


def test_a_missing_file_is_a_failure(world):
    answer = run_prepare(world, train=("nowhere.jsonl",))
    assert isinstance(answer, Failure) and "nowhere.jsonl" in answer.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"beta1": 0.9},
            r"adamw .* no option \['beta1'\]. Its options are \['lr', 'weight_decay', 'b_ratio', 'betas', 'eps'\]",
        ),
        (
            {"betas": 0.9},
            r"adamw cannot have the options {'betas': 0.9}: `betas` of AdamW must be a list of 2 numbers .*, found 0.9",
        ),
    ],
)
def test_wrong_options_of_the_optimizer_are_refused_first(world, options, message):
    answer = run_prepare(world, PluginSpec(name="adamw", options=options), train=("nowhere.jsonl",))
    assert isinstance(answer, Failure) and answer.error == "ConfigError"
    assert re.search(message, answer.message)


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_rows_held_out_are_not_trained_on(world, share):
    answer = run_prepare(world, validation=(), validation_share=share)
    assert answer.data.num_train + answer.data.num_validation == 40
    assert answer.data.num_validation == pytest.approx(40 * share, abs=8)
