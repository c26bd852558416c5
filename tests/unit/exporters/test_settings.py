"""What single tools need, beyond what every exporter promises."""

import json
import runpy

import pytest
import yaml
from safetensors.numpy import load_file

from marslora.core.spec import TrainingSpec
from marslora.exporters.axolotl import Axolotl
from marslora.exporters.llama_factory import LlamaFactory
from marslora.exporters.ms_swift import MsSwift
from marslora.exporters.peft import Peft
from marslora.exporters.trl import Trl
from marslora.exporters.vllm import Vllm, find_max_lora_rank
from marslora.testing.exporters_contract import INFO, decision

TRAINING = TrainingSpec(alpha_over_rank=2.0, part_learning_rates={"vision": 5e-5, "projector": 1e-3})


@pytest.mark.parametrize(("rank", "expected"), [(0, 1), (1, 1), (2, 8), (16, 16), (17, 32), (300, 320), (513, None)])
def test_vllm_takes_only_some_ranks(rank, expected):
    assert find_max_lora_rank(rank) == expected


def test_vllm_is_told_when_towers_are_adapted(tmp_path):
    (path,) = Vllm().export(decision(), INFO, TRAINING, "adapter", tmp_path)
    assert "--max-lora-rank 32" in path.read_text()
    assert "--enable-tower-connector-lora" in path.read_text()
    (path,) = Vllm().export(decision(vision=0, projector=0), INFO, TRAINING, "adapter", tmp_path)
    assert "--enable-tower-connector-lora" not in path.read_text()


@pytest.mark.parametrize("training", [TrainingSpec(full=("projector",)), TrainingSpec()])
def test_vllm_serves_a_merged_model_where_it_cannot_load_the_adapter(tmp_path, training):
    ranks = {} if training.full else {"language": 1024}
    (path,) = Vllm().export(decision(**ranks), INFO, training, "adapter", tmp_path)
    assert "merge_and_unload" in path.read_text()
    assert "--enable-lora" not in path.read_text()


def test_init_adapters_hold_the_ranks_and_change_nothing(tmp_path):
    MsSwift().export(decision(), INFO, TRAINING, None, tmp_path)
    weights = load_file(tmp_path / "init_adapter" / "adapter_model.safetensors")
    config = json.loads((tmp_path / "init_adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert weights["base_model.model.model.vision_tower.layers.0.q_proj.lora_A.weight"].shape == (4, 8)
    assert weights["base_model.model.model.language_model.layers.2.q_proj.lora_B.weight"].shape == (6, 24)
    for name, values in weights.items():
        assert values.any() == ("lora_A" in name)
        assert abs(values).max() <= 8**-0.5


def test_ms_swift_gets_the_learning_rates_it_knows(tmp_path):
    text = MsSwift().export(decision(), INFO, TRAINING, None, tmp_path)[0].read_text()
    assert "--vit_lr 5e-05" in text
    assert "--aligner_lr 0.001" in text
    assert "--freeze_vit false" in text


def test_llama_factory_freezes_what_has_no_rank(tmp_path):
    path = LlamaFactory().export(decision(vision=0), INFO, TRAINING, None, tmp_path)[0]
    values = yaml.safe_load(path.read_text())
    assert values["freeze_vision_tower"] is True
    assert values["freeze_multi_modal_projector"] is False
    assert "lora_rank" not in values


def test_axolotl_gets_whole_numbers(tmp_path):
    values = yaml.safe_load(Axolotl().export(decision(), INFO, TRAINING, None, tmp_path)[0].read_text())
    numbers = [values["lora_r"], values["lora_alpha"], *values["lora_rank_pattern"].values()]
    assert all(isinstance(number, int) for number in [*numbers, *values["lora_alpha_pattern"].values()])
    assert {values["lora_r"], *values["lora_rank_pattern"].values()} >= {4, 12, 24}


def test_the_peft_file_runs(tmp_path):
    config = runpy.run_path(str(Peft().export(decision(), INFO, TRAINING, None, tmp_path)[0]))["lora_config"]
    assert {config.r, *config.rank_pattern.values()} >= {4, 12, 24}
    assert config.lora_alpha == 2 * config.r


CHOSEN = {"learning_rate": 1.6e-3, "part_learning_rates": {"vision": 4.8e-3}}


@pytest.mark.parametrize(
    ("exporter", "written"),
    [
        (Axolotl, "\nlearning_rate: 0.0016\n"),
        (LlamaFactory, "\nlearning_rate: 0.0016\n"),
        (MsSwift, "--learning_rate 0.0016 "),
        (MsSwift, "--vit_lr 0.0048 "),
        (Trl, "learning_rate=0.0016,"),
    ],
)
def test_tools_get_the_chosen_learning_rate(exporter, written, tmp_path):
    chosen = decision().model_copy(update=CHOSEN)
    text = exporter().export(chosen, INFO, TRAINING, None, tmp_path)[0].read_text()
    assert written in text
    assert "The learning rate that it chose with them: 0.0016, vision 0.0048, projector 0.001." in text


@pytest.mark.parametrize("exporter", [Axolotl, LlamaFactory, Trl])
def test_a_tool_with_one_learning_rate_says_what_is_left_out(exporter, tmp_path):
    lost = "those of single parts are left out: vision 5e-05, projector 0.001."
    assert lost in exporter().export(decision(), INFO, TRAINING, None, tmp_path)[0].read_text()
    assert "left out" not in exporter().export(decision(), INFO, TrainingSpec(), None, tmp_path)[0].read_text()
