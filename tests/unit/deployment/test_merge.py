"""The merged model is a plain folder that computes what the adapter does; if it does not, nothing is kept."""

import copy
import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from marslora.core.errors import ConfigError, StudyError
from marslora.data.rows import load_encoded_splits
from marslora.demo.model import embedded_folder
from marslora.deployment import merge
from marslora.deployment.merge import merge_study
from marslora.models.loading import load
from marslora.models.quantization import is_quantized
from marslora.store.study import Study
from tests.end_to_end.test_cli import run
from tests.unit.deployment.conftest import train


def logits_of(model, study):
    """Logits on the validation rows, by `transformers` alone."""
    processor = AutoProcessor.from_pretrained(embedded_folder())
    rows = load_encoded_splits(Study.open(study).spec.data, processor, str(study / "cache")).validation
    batch = {name: value for name, value in rows.batch(range(len(rows))).items() if name != "labels"}
    with torch.no_grad():
        return model.eval()(**batch).logits[batch["attention_mask"].bool()]


def test_a_merged_folder_is_the_adapted_model(study, decision, tmp_path):
    check = decision.merge(tmp_path / "merged")
    base = AutoModelForImageTextToText.from_pretrained(embedded_folder())
    before = logits_of(base, study)
    adapted = logits_of(PeftModel.from_pretrained(base, decision.adapter_folder), study)
    merged = logits_of(AutoModelForImageTextToText.from_pretrained(tmp_path / "merged"), study)
    assert (adapted - before).abs().max() > 0.1
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)
    assert check.largest_difference < 1e-4 and check.same_tokens == 1 and check.num_positions > 50
    assert AutoProcessor.from_pretrained(tmp_path / "merged").chat_template
    assert not list(tmp_path.glob(".*"))


def test_weights_are_rounded_to_the_format_that_is_asked_for(study, tmp_path):
    check = merge_study(study, tmp_path / "half", dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}
    assert 1e-4 < check.largest_difference < 0.1


def test_the_model_in_memory_is_not_changed(study, tmp_path):
    shared = load(Study.open(study).spec.model).model
    before = {name: value.clone() for name, value in shared.state_dict().items()}
    merge_study(study, tmp_path / "merged")
    assert all(torch.equal(value, before[name]) for name, value in shared.state_dict().items())


def test_a_merge_that_computes_something_else_is_removed(study, tmp_path, monkeypatch):
    """One number of a weight is changed on its way to the disk."""
    real = merge._read_logits

    def damage(folder, *rest):
        weights = load_file(folder / "model.safetensors")
        name = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight"))
        weights[name] = weights[name].clone()
        weights[name][0, 0] += 1.0
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return real(folder, *rest)

    monkeypatch.setattr(merge, "_read_logits", damage)
    with pytest.raises(StudyError, match=r"writing and loading changes logits by up to .*Nothing was kept"):
        merge_study(study, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_a_merge_that_forgets_a_weight_is_refused(study, tmp_path, monkeypatch):
    """PEFT's merge is imitated by one that leaves the adapter out."""
    monkeypatch.setattr("peft.PeftModel.merge_and_unload", lambda self, **_: self.unload(), raising=False)
    with pytest.raises(StudyError, match=r"merging changes logits by up to"):
        merge_study(study, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_rounding_that_changes_answers_is_refused(study, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "MOST_ROUNDING", 1e-3)
    with pytest.raises(StudyError, match=r"Rounding the merged weights to bfloat16 changes.*--dtype float32"):
        merge_study(study, tmp_path / "merged", dtype="bfloat16")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(study, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"exists already"):
        merge_study(study, tmp_path)


def test_an_adapter_that_depends_on_its_input_is_refused(tmp_path):
    from tests.unit.deployment.conftest import train

    moka = train(tmp_path, adapter="moka", examples=16)
    with pytest.raises(ConfigError, match=r"`moka` cannot be merged.*marslora.attach"):
        merge_study(moka.folder, tmp_path / "merged")
    assert moka.open_answerer().ask("list the objects.", base=False).adapted


def test_the_command_says_how_close_it_is(monkeypatch, capsys, study, tmp_path):
    out = tmp_path / "merged"
    code, told, _ = run(monkeypatch, capsys, "merge", study, "--out", out)
    assert code == 0 and "logits differ from the adapter's by at most" in told
    assert str(embedded_folder()) not in (out / "config.json").read_text() + (out / "README.md").read_text()
    assert json.loads((out / "config.json").read_text())["model_type"] == "llava"
    code, _, error = run(monkeypatch, capsys, "merge", study, "--out", out, "--dtype", "int4")
    assert code == 2 and "int4" in error


@pytest.mark.parametrize(("method", "rounding"), [("nf4", 1e-4), ("int8", 0.25)])
def test_a_quantised_base_is_merged_as_the_numbers_that_it_computed_with(tmp_path, method, rounding):
    """In 4 bits nothing is lost; in 8 bits inputs were rounded too, and are not any more."""
    pytest.importorskip("bitsandbytes", reason="needs marslora[quantize]")
    trained = train(tmp_path, quantize=method)
    study = trained.folder
    base = load(Study.open(study).spec.model).model
    adapted = logits_of(PeftModel.from_pretrained(copy.deepcopy(base), trained.adapter_folder), study)
    check = merge_study(study, tmp_path / "merged")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    assert not is_quantized(model) and getattr(model.config, "quantization_config", None) is None
    assert float((logits_of(model, study) - adapted).abs().max() / adapted.std()) < rounding
    assert check.largest_difference < 1e-4
