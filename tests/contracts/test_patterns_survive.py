"""Ranks by module mean the same to all who load them: in any order of keys, after saving, under other prefixes."""

import copy
import functools
import json
import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.other import get_pattern_key

from marslora.core.allocation import Allocation
from marslora.core.patterns import lora_config_dict
from marslora.models.discovery import discover
from tests.helpers.tiny_models import build

ADAPTER_NAME = re.compile(r"^(?:base_model\.model\.)?(.*)\.lora_A\.default$")
MODEL, _ = build("llava")
NAMES = tuple(linear.name for part in discover(MODEL).parts for linear in part.linears)
BY_MODULE = st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=len(NAMES), max_size=len(NAMES)).filter(any)
PREFIXES = ("llava", "qwen2_5_vl", "phi4_multimodal", "qwen2_audio", "gemma4", "qwen2_5_omni_thinker", "mllama")


@functools.cache
def info_of(name):
    return discover(build(name)[0])


def found(model):
    """(rank, scale) of every module that has an adapter."""
    ranks = {}
    for name, module in model.named_modules():
        if matched := ADAPTER_NAME.match(name):
            layer = model.get_submodule(name.removesuffix(".lora_A.default"))
            ranks[matched[1]] = (module.weight.shape[0], layer.scaling["default"])
    return ranks


def shuffled(config, seed):
    """The settings with the keys of their patterns in another order."""
    order = sorted(config["rank_pattern"])
    random.Random(seed).shuffle(order)
    return {**config, **{name: {key: config[name][key] for key in order} for name in ("rank_pattern", "alpha_pattern")}}


@settings(max_examples=6, deadline=None)
@given(BY_MODULE, st.integers(0, 9))
def test_any_ranks_survive_any_order_saving_and_loading(tmp_path_factory, ranks, seed):
    config = lora_config_dict(dict(zip(NAMES, ranks, strict=True)), 2.0)
    wanted = {name: (rank, 2.0) for name, rank in zip(NAMES, ranks, strict=True) if rank}
    folder = tmp_path_factory.mktemp("adapter")
    made = get_peft_model(copy.deepcopy(MODEL), LoraConfig(**shuffled(config, seed)))
    assert found(made) == wanted
    made.save_pretrained(folder)
    assert found(PeftModel.from_pretrained(copy.deepcopy(MODEL), folder)) == wanted
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(shuffled(json.loads(path.read_text()), seed + 1)))
    assert found(PeftModel.from_pretrained(copy.deepcopy(MODEL), folder)) == wanted
    plain = copy.deepcopy(MODEL)
    plain.load_adapter(folder)
    assert found(plain) == wanted


def saved(folder, allocation):
    """A random adapter of the tiny model; its ranks and tensors by module path without a head's prefix."""
    ranks = discover(MODEL).module_ranks(allocation)
    model = get_peft_model(copy.deepcopy(MODEL), LoraConfig(**lora_config_dict(ranks, 2.0)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    tensors = {
        name.replace("base_model.model.model.", ""): p for name, p in model.named_parameters() if "lora_" in name
    }
    return {name.removeprefix("model."): (rank, 2.0) for name, rank in ranks.items()}, tensors


def test_transformers_loads_an_adapter_into_the_model_without_its_head(tmp_path):
    wanted, tensors = saved(tmp_path, Allocation.of(vision=2, projector=3, language=5))
    headless = copy.deepcopy(MODEL).model
    headless.load_adapter(tmp_path)
    assert found(headless) == wanted
    loaded = {name: parameter for name, parameter in headless.named_parameters() if "lora_" in name}
    assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[key], tensors[key]) for key in tensors)


def test_transformers_loads_an_adapter_that_was_saved_under_the_paths_of_older_releases(tmp_path):
    from safetensors.torch import load_file, save_file

    wanted, tensors = saved(tmp_path, Allocation.of(vision=2, projector=3, language=5))
    path = tmp_path / "adapter_model.safetensors"
    renamed = {}
    for key, tensor in load_file(path).items():
        old = key.replace("model.model.language_model.", "model.language_model.model.")
        old = old.replace("model.model.vision_tower.", "model.vision_tower.vision_model.")
        renamed[old.replace("model.model.multi_modal", "model.multi_modal")] = tensor
    assert not any(key.startswith("base_model.model.model.") for key in renamed)
    save_file(renamed, path, metadata={"format": "pt"})
    model = copy.deepcopy(MODEL)
    model.load_adapter(tmp_path)
    assert {name.removeprefix("model."): rank for name, rank in found(model).items()} == wanted
    loaded = {name.removeprefix("model."): p for name, p in model.named_parameters() if "lora_" in name}
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("name", PREFIXES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_part_ranks_mean_the_same_under_other_prefixes(name, data):
    info = info_of(name)
    ranks = data.draw(st.lists(st.integers(0, 3), min_size=len(info.parts), max_size=len(info.parts)).filter(any))
    allocation = Allocation.of(dict(zip((part.name for part in info.parts), ranks, strict=True)))
    wanted = info.module_ranks(allocation)
    if not wanted:
        return
    config = lora_config_dict(wanted, 2.0)
    for path, rank in wanted.items():
        for prefixed in {path, path.removeprefix("model.")}:
            key = get_pattern_key(config["rank_pattern"], prefixed)
            assert config["rank_pattern"].get(key, config["r"]) == rank, prefixed
            assert re.fullmatch(config["target_modules"], prefixed)
