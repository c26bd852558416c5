"""The exports that can be executed here, executed on a tiny LLaVA."""

import runpy

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from marslora.core.allocation import Allocation
from marslora.core.exported_run import ExportedRun
from marslora.core.spec import DataSpec, ModelSpec, RowsSpec
from marslora.data.export import write_rows as write_out_rows
from marslora.exporters.ms_swift import MsSwift
from marslora.exporters.peft import Peft
from marslora.exporters.trl import Trl
from marslora.models.loading import describe
from marslora.testing.exporters_contract import decision
from tests.unit.finetune.tiny import write_model, write_rows

RANKS = Allocation.of(vision=2, projector=3, language=5)
TRAINING = ExportedRun(num_examples=40, batch_size=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    write_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def info(world):
    return describe(ModelSpec(path=str(world / "model")))


def ranks_of(model):
    return {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default"): module.weight.shape[0]
        for name, module in model.named_modules()
        if name.endswith("lora_A.default")
    }


def test_the_peft_file_gives_the_ranks(world, info, tmp_path):
    (path,) = Peft().export(decision(**RANKS.as_dict()), info, TRAINING, None, tmp_path)
    base = AutoModelForImageTextToText.from_pretrained(world / "model")
    model = get_peft_model(base, runpy.run_path(str(path))["lora_config"])
    assert ranks_of(model) == info.module_ranks(RANKS)


def test_an_init_adapter_is_continued_with_its_ranks_and_changes_nothing(world, info, tmp_path):
    MsSwift().export(decision(**RANKS.as_dict()), info, TRAINING, None, tmp_path)
    base = AutoModelForImageTextToText.from_pretrained(world / "model").eval()
    tokens = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = base(input_ids=tokens).logits
    model = PeftModel.from_pretrained(base, tmp_path / "init_adapter", is_trainable=True)
    assert ranks_of(model) == info.module_ranks(RANKS)
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" in name)
    torch.testing.assert_close(model(input_ids=tokens).logits, before)


@pytest.mark.slow
def test_the_trl_script_trains_the_ranks(world, info, tmp_path):
    pytest.importorskip("trl")
    run = TRAINING.model_copy(update={"model": str(world / "model"), "num_validation": 4})
    (path,) = Trl().export(decision(**RANKS.as_dict()), info, run, None, tmp_path)
    data = DataSpec(train=(write_rows(world, "train", 8, 0),), validation=(write_rows(world, "validation", 4, 1),))
    write_out_rows(
        RowsSpec(data=data, folders=((str(tmp_path), "prompt"),), media_folder=str(tmp_path)), lambda _: None
    )
    trainer = runpy.run_path(str(path))["main"](use_cpu=True)
    assert trainer.state.global_step == run.num_steps == 10
    wanted = {name: value for name, value in run.trainer_arguments().items() if name != "learning_rate"}
    assert {name: getattr(trainer.args, name) for name in wanted} == wanted
    assert trainer.args.learning_rate == run.learning_rate
    weights = load_file(tmp_path / "trained" / "adapter_model.safetensors")
    for name, rank in info.module_ranks(RANKS).items():
        assert weights[f"base_model.model.{name}.lora_A.weight"].shape[0] == rank
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)
