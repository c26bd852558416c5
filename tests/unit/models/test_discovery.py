"""Parts are found in any architecture, without a table."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from marslora.core.errors import ConfigError, ModelError
from marslora.models.discovery import discover
from tests.helpers.tiny_models import FEW, TINY, build

PART_OF = {"image": "vision", "video": "vision", "audio": "audio"}
WITHOUT_TOWER = {("gemma4", "audio")}
"""Built here without an audio tower although the class declares to hear."""
RAW_PROJECTOR = {"gemma3"}
"""Its projector is a bare parameter: it has a path and parameters but no linear."""
zoo = pytest.mark.parametrize("name", TINY)


@zoo
def test_every_modality_has_its_part_and_the_projector_is_found(name):
    model, _ = build(name)
    info = discover(model)
    for modality in set(info.modalities) - {"text"}:
        if (name, PART_OF[modality]) not in WITHOUT_TOWER:
            assert info.part(PART_OF[modality]).linears, modality
    assert info.part("language").linears
    assert info.part("projector").num_parameters > 0
    assert bool(info.part("projector").linears) == (name not in RAW_PROJECTOR)


@zoo
def test_the_width_is_that_of_the_language_model(name):
    model, _ = build(name)
    assert discover(model).width == model.get_input_embeddings().weight.shape[1]


@zoo
def test_parts_are_disjoint_and_nothing_but_the_head_is_left_over(name):
    model, _ = build(name)
    info = discover(model)
    names = [linear.name for part in info.parts for linear in part.linears]
    every = {path for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert len(names) == len(set(names))
    assert set(names) | set(info.unlabelled) == every
    assert [path for path in info.unlabelled if not path.endswith("head.attention.out_proj")] == ["lm_head"]
    assert sum(part.num_parameters for part in info.parts) <= info.num_parameters
    for part in info.parts:
        assert all(any(linear.name.startswith(path) for path in part.paths) for linear in part.linears)


@pytest.mark.parametrize("name", FEW)
def test_the_meta_device_shows_the_same(name):
    model, _ = build(name)
    with torch.device("meta"):
        skeleton = type(model)(model.config)
    assert discover(skeleton) == discover(model)


def test_sizes_are_those_of_the_weights():
    model, _ = build("llava")
    for part in discover(model).parts:
        for linear in part.linears:
            assert tuple(model.get_submodule(linear.name).weight.shape) == (linear.outputs, linear.inputs)


def test_a_projector_inside_the_tower_is_told_from_it():
    info = discover(build("qwen2_5_vl")[0])
    assert info.part("projector").paths == ("model.visual.merger",)
    assert all(".merger." in linear.name for linear in info.part("projector").linears)
    assert not any(".merger." in linear.name for linear in info.part("vision").linears)


def test_two_towers_and_their_projectors():
    info = discover(build("qwen2_5_omni_thinker")[0])
    assert [part.name for part in info.parts] == ["vision", "audio", "projector", "language"]
    assert info.part("projector").paths == ("model.audio_tower.proj", "model.visual.merger")


def test_targets_choose_among_the_linears_by_their_whole_path():
    model, _ = build("llava")
    info = discover(model, targets=r".*\.(q|v)_proj")
    names = [linear.name for part in info.parts for linear in part.linears]
    assert names and all(re.search(r"\.[qv]_proj$", name) for name in names)
    assert any("matches no linear of projector" in warning for warning in info.warnings)


@pytest.mark.parametrize(("targets", "error"), [("q_proj", ModelError), ("(", ConfigError)])
def test_useless_targets_say_so(targets, error):
    with pytest.raises(error, match="targets"):
        discover(build("llava")[0], targets=targets)


def test_stacked_experts_are_named_as_left_alone():
    info = discover(build("qwen3_vl_moe")[0])
    assert any("experts" in warning for warning in info.warnings)
