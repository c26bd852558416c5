"""Every architecture that transformers can build is understood: a new release that moves things is noticed here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

from marslora.models.discovery import discover

SCRIPT = Path(__file__).parents[3] / "scripts" / "coverage_table.py"
PART_OF = {"image": "vision", "video": "vision", "audio": "audio"}
KNOWN_WITHOUT = {
    ("fuyu", "vision"): "its patches go straight into one linear, the projector",
    ("gemma4", "vision"): "no tower in the default configuration",
    ("gemma4", "audio"): "no tower in the default configuration",
    ("gemma4_unified", "vision"): "no tower in the default configuration",
    ("gemma4_unified", "audio"): "no tower in the default configuration",
    ("nemotron_h_omni", "audio"): "no tower in the default configuration",
    ("kyutai_speech_to_text", "audio"): "hears through a frozen codec",
}
TEXT_ONLY = {"evolla", "mistral4"}
MAX_NOT_BUILDABLE = 13


@pytest.fixture(scope="module")
def survey():
    spec = importlib.util.spec_from_file_location("coverage_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.survey()


@pytest.mark.slow
def test_every_declared_modality_has_its_part(survey):
    found, _ = survey
    lacking = {
        (name, PART_OF[modality])
        for name, info in found.items()
        for modality in set(info.modalities) - {"text"}
        if PART_OF[modality] not in {part.name for part in info.parts}
    }
    assert lacking <= set(KNOWN_WITHOUT)


@pytest.mark.slow
def test_every_architecture_has_a_language_part_and_nothing_is_in_two(survey):
    found, _ = survey
    for name, info in found.items():
        names = [linear.name for part in info.parts for linear in part.linears]
        assert len(names) == len(set(names)), name
        assert info.part("language").linears, name
    assert {name for name, info in found.items() if info.modalities == ("text",)} == TEXT_ONLY


@pytest.mark.slow
def test_hardly_any_linear_is_left_over(survey):
    """Heads, generators of sound and pictures, and codecs; nothing else."""
    found, _ = survey
    many = {name for name, info in found.items() if len(info.unlabelled) > 2}
    assert many <= {"janus", "kyutai_speech_to_text", "nemo_speechlm", "pi0", "qwen2_5_omni"}


@pytest.mark.slow
def test_no_more_architectures_than_known_need_a_real_configuration(survey):
    found, left_out = survey
    assert len(left_out) <= MAX_NOT_BUILDABLE, left_out
    assert len(found) >= 99


@pytest.mark.slow
def test_all_stacked_experts_can_be_adapted(survey):
    found, _ = survey
    stacked = [name for name, info in found.items() if any("of experts are stacked" in w for w in info.warnings)]
    assert len(stacked) >= 20
    for name in stacked:
        mapped = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[name]
        with torch.device("meta"):
            model = getattr(transformers, mapped if isinstance(mapped, str) else mapped[0])(CONFIG_MAPPING[name]())
        info = discover(model, experts=True)
        assert not any("experts" in warning for warning in info.warnings), name
        experts = [linear for part in info.parts for linear in part.linears if linear.experts > 1]
        assert experts and all(model.get_parameter(linear.name).shape[0] == linear.experts for linear in experts)
