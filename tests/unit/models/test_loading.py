"""Models and processors are loaded frozen, once; whatever is wrong is said in one line."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from marslora.core.errors import ConfigError, ModelError
from marslora.core.spec import ModelSpec
from marslora.models import loading
from marslora.models.discovery import discover
from tests.helpers.tiny_models import build
from tests.helpers.tiny_processors import llava_processor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "llava"
    build("llava")[0].save_pretrained(path)
    llava_processor().save_pretrained(path)
    return path


def cpu(path, **more):
    return ModelSpec(path=str(path), device="cpu", dtype="float32", **more)


def test_a_folder_is_loaded_frozen_and_in_eval_mode(folder):
    loaded = loading.load(cpu(folder))
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.float32)
    original = build("llava")[0].state_dict()
    assert all(torch.equal(value, original[name]) for name, value in loaded.model.state_dict().items())
    assert "<image>" in loaded.processor.tokenizer.get_vocab()


def test_it_is_loaded_once_and_again_when_its_files_change(folder, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(folder, path)
    first = loading.load(cpu(path))
    assert loading.load(cpu(path, targets=".*q_proj")) is first
    (path / "config.json").write_text((path / "config.json").read_text() + "\n")
    assert loading.load(cpu(path)) is not first


@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_the_asked_dtype_is_used(folder, dtype, expected):
    loaded = loading.load(ModelSpec(path=str(folder), device="cpu", dtype=dtype))
    assert loaded.dtype == expected == next(loaded.model.parameters()).dtype


def test_auto_is_float32_on_the_cpu():
    assert loading.resolve_dtype("auto", torch.device("cpu")) == torch.float32


def test_workers_take_the_devices_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert loading.resolve_device("auto") == torch.device("cuda")
    for worker, index in (("0", 0), ("1", 1), ("2", 0)):
        monkeypatch.setenv("MARSLORA_WORKER", worker)
        assert loading.resolve_device("auto") == loading.resolve_device("cuda") == torch.device("cuda", index)
    assert loading.resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["nosuch", "cuda:99", "gpu"])
def test_a_device_that_does_not_exist_is_named(name):
    with pytest.raises(ConfigError, match=f"`device` '{name}' cannot be used: .*Name an existing one"):
        loading.resolve_device(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_auto_is_bfloat16_on_a_device_that_has_it():
    assert loading.resolve_device("auto").type == "cuda"
    assert loading.resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_describe_needs_no_weights(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert loading.describe(cpu(tmp_path)) == discover(build("llava")[0])


def test_models_in_memory_are_told_apart_by_their_weights():
    model, _ = build("llava")
    before = loading.fingerprint_model(model)
    assert loading.fingerprint_model(model) == before
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert loading.fingerprint_model(model) != before


def test_objects_in_memory_are_named_and_loaded():
    model, _ = build("llava")
    processor = llava_processor()
    path = loading.register_model("mine", model, processor)
    loaded = loading.load(ModelSpec(path=path))
    assert path == "memory:mine"
    assert loaded.model is model and loaded.processor is processor
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert loading.describe(ModelSpec(path=path)) == discover(model)


def text_only(path):
    LlamaForCausalLM(
        LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=16)
    ).config.save_pretrained(path)


def no_config(path):
    (path / "weights.bin").write_text("")


def adapter(path):
    (path / "adapter_config.json").write_text("{}")


def unknown_type(path):
    (path / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (text_only, "not multimodal"),
        (no_config, "no config.json"),
        (adapter, "PEFT adapter"),
        (unknown_type, "no_such_model"),
    ],
)
def test_folders_that_are_no_multimodal_model(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ModelError, match=message) as error:
        loading.load(cpu(tmp_path))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        loading.load(cpu(tmp_path / "nowhere"))


def test_a_relative_folder_that_is_missing_is_not_sought_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelError, match="`models/llava` does not exist"):
        loading.load(cpu("models/llava"))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        loading.load(cpu(tmp_path / "model.safetensors"))


def test_a_missing_processor_says_how_to_save_one(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path / name)
    with pytest.raises(ModelError, match=r"processor.*save_pretrained"):
        loading.load(cpu(tmp_path))


def test_a_tokenizer_alone_is_no_processor(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    for path in (tmp_path / "m").glob("*processor*"):
        path.unlink()
    with pytest.raises(ModelError, match="processor"):
        loading.load(cpu(tmp_path / "m"))


@pytest.mark.parametrize(
    "problem",
    [
        ImportError("Qwen2VLVideoProcessor requires the Torchvision library but it was not found."),
        RuntimeError("operator torchvision::nms does not exist"),
    ],
)
def test_a_package_that_a_processor_demands_is_named(folder, monkeypatch, problem):
    def refuse(*args, **kwargs):
        raise problem

    monkeypatch.setattr(loading.AutoProcessor, "from_pretrained", refuse)
    with pytest.raises(ModelError, match=r"fits torch .*pip install 'marslora\[vision\]'"):
        loading.load_processor(cpu(folder))


def test_damaged_weights(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="weights"):
        loading.load(cpu(tmp_path / "m"))


def test_a_name_nobody_holds():
    with pytest.raises(ModelError, match="`memory:nobody` must be registered"):
        loading.load(ModelSpec(path="memory:nobody"))


def test_a_model_in_memory_is_known_by_all_of_its_weights_its_configuration_and_its_processor():
    model, _ = build("llava")
    processor = llava_processor()
    before = loading.fingerprint_model(model, processor)
    assert loading.fingerprint_model(build("llava")[0], llava_processor()) == before
    seen = {before}
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[[7, 9]] = weight[[9, 7]]  # the same numbers in another order
    seen.add(loading.fingerprint_model(model, processor))
    model.config.text_config.rms_norm_eps *= 2
    seen.add(loading.fingerprint_model(model, processor))
    processor.tokenizer.add_tokens(["<new>"])
    seen.add(loading.fingerprint_model(model, processor))
    processor.chat_template = "{{ messages }}"
    seen.add(loading.fingerprint_model(model, processor))
    assert len(seen) == 5
    assert len({loading.fingerprint_model(model.to(torch.bfloat16)), *seen}) == 6


def test_a_folder_whose_files_are_exchanged_by_older_ones_is_loaded_again(folder, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(folder, path)
    first = loading.load(cpu(path))
    build("llava", seed=1)[0].save_pretrained(tmp_path / "other")
    os.replace(tmp_path / "other" / "model.safetensors", path / "model.safetensors")
    os.utime(path / "model.safetensors", ns=(0, 0))
    second = loading.load(cpu(path))
    assert second is not first
    assert not torch.equal(first.model.lm_head.weight, second.model.lm_head.weight)
