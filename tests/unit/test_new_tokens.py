"""Tokens that are new to a model are trained by a search and saved in PEFT's form with the adapter."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner

import marslora
from marslora.cli import app
from marslora.core.errors import ConfigError
from marslora.core.training import TrainingSettings
from tests.unit.models.test_tokens import NEW, make_model, row


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("tokens")
    folder, ids = make_model(root / "model")
    rows = root / "rows.jsonl"
    rows.write_text("".join(json.dumps(row(number, NEW[number % 4])) + "\n" for number in range(64)))
    options = {"model": folder, "train": rows, "learning_rate": 3e-3, "epochs": 2, "study": root / "study"}
    ranks = {"vision": 0, "projector": 0, "language": (2, 4)}
    return root, ids, marslora.search(**options, ranks=ranks, trainable_token_indices=ids)


def test_the_rows_are_saved_with_the_adapter_in_the_form_of_peft(study):
    root, ids, decision = study
    config = json.loads((decision.adapter_folder / "adapter_config.json").read_text())
    assert config["trainable_token_indices"] == {"model.language_model.embed_tokens": ids}
    stored = load_file(decision.adapter_folder / "adapter_model.safetensors")
    (key,) = [name for name in stored if "token" in name]
    assert key == "base_model.model.model.language_model.embed_tokens.token_adapter.trainable_tokens_delta"
    model = AutoModelForImageTextToText.from_pretrained(root / "model")
    assert (stored[key] - model.get_input_embeddings().weight[ids]).abs().max() > 1e-3
    assert decision.lora_settings()["trainable_token_indices"] == config["trainable_token_indices"]
    linears = decision.info.part("language").num_trainable(decision.chosen["language"])
    assert (
        decision.final.num_trainable == decision.record.chosen_candidate.num_trainable == linears + stored[key].numel()
    )


def test_whoever_loads_the_folder_gets_the_rows(study):
    root, ids, decision = study
    batch = {"input_ids": torch.tensor([[ids[0], ids[1], ids[2]]])}
    logits = []
    for load in (marslora.attach, lambda model, folder: PeftModel.from_pretrained(model, folder).eval()):
        model = load(AutoModelForImageTextToText.from_pretrained(root / "model"), decision.adapter_folder)
        with torch.no_grad():
            logits.append(model(**batch).logits)
    assert torch.equal(*logits)
    merged = model.merge_and_unload()
    with torch.no_grad():
        assert torch.allclose(merged(**batch).logits, logits[0], atol=1e-4)


def test_the_final_run_continued_calibration_and_learned_the_tokens(study):
    _, _, decision = study
    assert decision.record.continue_run is not None
    assert decision.final.validation_loss < 0.6 * decision.final.base_validation_loss


def test_the_warning_goes_once_they_are_trained(study):
    _, _, decision = study
    assert not any("never trained" in each for each in decision.info.warnings)
    (written,) = (decision.folder / "exports" / "axolotl").glob("*.yaml")
    assert "peft_trainable_token_indices" in written.read_text()
    assert "tokens trained whole" in (decision.folder / "exports" / "vllm" / "vllm_serve.sh").read_text()


@pytest.mark.parametrize("value", ["640,642", [642, 640], (640, "642"), ["640", "642", "640"]])
def test_indices_are_read_as_they_are_typed(value):
    assert TrainingSettings(trainable_token_indices=value).trainable_token_indices == (640, 642)


def test_what_cannot_be_trained_is_refused_before_anything_is_read(study):
    root, ids, _ = study
    options = {"model": root / "model", "train": root / "rows.jsonl", "study": root / "refused"}
    with pytest.raises(ConfigError, match=rf"must be below {ids[-1] + 1}, the rows of .* found \[{ids[-1] + 1}\]"):
        marslora.search(**options, trainable_token_indices=(ids[-1] + 1,))
    with pytest.raises(ConfigError, match=r"`trainable_token_indices` need the adapter `lora`.* found `hydralora`"):
        marslora.search(**options, trainable_token_indices=ids, adapter="hydralora", calibration_adapter="lora")
    with pytest.raises(ConfigError, match="trainable_token_indices"):
        marslora.search(**options, trainable_token_indices="<loc0>")
    assert not (root / "refused" / "prepared.json").exists()
    arguments = ["search", "-m", str(root / "model"), "-d", str(root / "rows.jsonl"), "--trainable-token-indices", "x"]
    done = CliRunner().invoke(app, arguments)
    assert "`--trainable-token-indices` must be ids such as 32000,32001, found 'x'" in str(done.exception)
