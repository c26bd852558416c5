"""The final run hands back its best point."""

import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from marslora.core.spec import TrainingSpec
from marslora.data.rows import load_encoded_splits
from marslora.finetune.checkpoints import FinalRunState
from marslora.models.loading import load
from tests.unit.finetune.conftest import maker
from tests.unit.finetune.tiny import distance, run, weights, write_rows


@pytest.fixture(scope="module")
def contradicting(world, tmp_path_factory):
    """A model and data on which every run overfits: all training answers are red, of the validation answers one half.

    The validation loss falls until red is as likely as that, and rises while the model grows surer. The head is larger
    than that of a fresh model, whose tiny weights could not make any word likely.
    """
    folder = tmp_path_factory.mktemp("contradicting")
    model = AutoModelForImageTextToText.from_pretrained(shutil.copytree(world / "model", folder / "model"))
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
    model.save_pretrained(folder / "model")
    train = write_rows(folder, "train", 8, 0, colours=("red",))
    validation = write_rows(folder, "validation", 16, 1, colours=("red", "green", "red", "blue", "red", "white"))
    return str(folder / "model"), {"train": (train,), "validation": (validation,)}


def with_keep(final_spec, contradicting, name, keep):
    path, files = contradicting
    training = {"learning_rate": 0.01, "evaluations": 9, "dropout": 0.0, "keep": keep}
    spec = final_spec(name, full_examples=160, training=training)
    return spec.model_copy(
        update={"model": spec.model.model_copy(update={"path": path}), "data": spec.data.model_copy(update=files)}
    )


@pytest.fixture(scope="module")
def kept(world, info, contradicting, tmp_path_factory):
    spec = with_keep(maker(world, info, tmp_path_factory.mktemp("kept")), contradicting, "best", "best")
    return spec, run(spec)[-1]


def test_the_adapter_is_the_one_of_the_lowest_validation_loss(kept):
    spec, result = kept
    lowest = min(result.validation_curve[1:])
    assert lowest < result.validation_curve[-1] - 0.1, "the run was meant to overfit"
    assert result.kept_examples == result.examples[result.validation_curve.index(lowest)]
    assert result.validation_loss == pytest.approx(lowest, abs=1e-6)
    base = AutoModelForImageTextToText.from_pretrained(spec.model.path)
    model = PeftModel.from_pretrained(base, result.adapter_folder).eval()
    rows = load_encoded_splits(spec.data, load(spec.model).processor, spec.cache_folder).validation
    assert float(model(**rows.batch(range(len(rows)))).loss) == pytest.approx(lowest, abs=1e-5)


def test_asked_for_the_last_it_keeps_the_last(final_spec, contradicting, kept):
    last = with_keep(final_spec, contradicting, "last", "last")
    result = run(last)[-1]
    assert result.validation_curve == kept[1].validation_curve
    assert result.kept_examples is None
    assert result.validation_loss == pytest.approx(result.validation_curve[-1], abs=1e-6)


def test_a_run_killed_after_its_best_point_still_keeps_it(final_spec, contradicting, kept):
    spec, expected = kept
    killed = with_keep(final_spec, contradicting, "killed", "best")
    run(killed, until=(expected.kept_examples + 160) // 16 * 8)
    result = run(killed)[-1]
    assert (result.kept_examples, result.validation_loss) == (expected.kept_examples, expected.validation_loss)
    assert distance(weights(spec), weights(killed)) == 0


def test_a_run_ends_when_its_patience_does(final_spec, contradicting, kept):
    whole = kept[1]
    spec = with_keep(final_spec, contradicting, "patient", "best")
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"patience": 2})})
    result = run(spec)[-1]
    lowest = whole.validation_curve.index(min(whole.validation_curve[1:]))
    assert lowest + 2 < len(whole.examples) - 1, "the run was meant to end early"
    assert result.examples == whole.examples[: lowest + 3]
    assert result.validation_curve == whole.validation_curve[: lowest + 3]
    assert (result.kept_examples, result.validation_loss) == (whole.kept_examples, whole.validation_loss)
    assert distance(weights(spec), weights(kept[0])) == 0
    assert result.cost.examples == result.examples[-1] < whole.cost.examples


def test_patience_needs_the_best_point():
    with pytest.raises(ValueError, match="`patience` 2 needs `keep` best, found last"):
        TrainingSpec(patience=2, keep="last")


def test_the_model_as_it_came_is_no_point_of_the_run():
    progress = FinalRunState(
        spec_digest="", started_at_examples=0, base_validation_loss=1.0, base_validation_accuracy=0.0
    )
    assert progress.best is None
    assert progress.add_validation(0, 1.0).best is None
    assert (
        progress.add_validation(0, 1.0).add_validation(8, 2.0).add_validation(16, 1.5).add_validation(24, 1.7).best == 2
    )
    assert progress.add_validation(8, float("nan")).best is None
    assert progress.add_validation(8, float("nan")).add_validation(16, 1.5).add_validation(24, float("inf")).best == 1
