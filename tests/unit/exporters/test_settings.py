"""What single tools need, beyond what every exporter promises."""

import json
import runpy
import shlex

import pytest
import yaml
from safetensors.numpy import load_file

from marslora.core.exported_run import ExportedRun
from marslora.core.spec import PluginSpec
from marslora.exporters.axolotl import Axolotl
from marslora.exporters.llama_factory import LlamaFactory
from marslora.exporters.ms_swift import MsSwift
from marslora.exporters.peft import Peft
from marslora.exporters.trl import Trl
from marslora.exporters.unsloth import Unsloth
from marslora.exporters.vllm import Vllm, find_max_lora_rank
from marslora.testing.exporters_contract import INFO, decision

TRAINING = ExportedRun(num_examples=800, alpha_over_rank=2.0, part_learning_rates={"vision": 5e-5, "projector": 1e-3})


@pytest.mark.parametrize(("rank", "expected"), [(0, 1), (1, 1), (2, 8), (16, 16), (17, 32), (300, 320), (513, None)])
def test_vllm_takes_only_some_ranks(rank, expected):
    assert find_max_lora_rank(rank) == expected


def test_vllm_finds_the_adapter_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path,) = Vllm().export(decision(), INFO, TRAINING, "study/final/adapter", tmp_path)
    assert f"marslora={tmp_path}/study/final/adapter" in path.read_text()


def test_vllm_is_told_when_towers_are_adapted(tmp_path):
    (path,) = Vllm().export(decision(), INFO, TRAINING, "adapter", tmp_path)
    assert "--max-lora-rank 32" in path.read_text()
    assert "--enable-tower-connector-lora" in path.read_text()
    (path,) = Vllm().export(decision(vision=0, projector=0), INFO, TRAINING, "adapter", tmp_path)
    assert "--enable-tower-connector-lora" not in path.read_text()


@pytest.mark.parametrize(
    "training",
    [
        ExportedRun(num_examples=800, full=("projector",)),
        ExportedRun(
            num_examples=800,
        ),
    ],
)
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
        (Trl, "'learning_rate': 0.0016,"),
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
    assert (
        "left out"
        not in exporter()
        .export(
            decision(),
            INFO,
            ExportedRun(
                num_examples=800,
            ),
            None,
            tmp_path,
        )[0]
        .read_text()
    )


SCHEDULE = {
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "max_steps": 50,
    "gradient_accumulation_steps": 2,
    "weight_decay": 0.1,
    "max_grad_norm": 0.5,
    "seed": 7,
    "adam_beta1": 0.8,
    "adam_beta2": 0.99,
    "lr_scheduler_kwargs": {"num_decay_steps": 10, "decay_type": "linear"},
    "eval_steps": 4,
}
RUN = ExportedRun(
    num_examples=800,
    batch_size=16,
    accumulation=2,
    learning_rate=1e-3,
    weight_decay=0.1,
    clip_norm=0.5,
    seed=7,
    num_validation=8,
    optimizer={"name": "adamw", "options": {"betas": [0.8, 0.99]}},
    model="/models/llava",
    max_length=512,
)


def read_yaml(exporter, folder, name):
    return yaml.safe_load(exporter().export(decision(), INFO, RUN, None, folder)[0].read_text())


def test_llama_factory_gets_the_whole_course_of_the_run(tmp_path):
    values = read_yaml(LlamaFactory, tmp_path, "llama_factory.yaml")
    assert values["lr_scheduler_kwargs"].pop("num_stable_steps") == 50 - 2 - 10
    assert {name: values[name] for name in SCHEDULE} == SCHEDULE
    assert (values["per_device_train_batch_size"], values["per_device_eval_batch_size"]) == (8, 8)
    assert (values["model_name_or_path"], values["cutoff_len"], values["template"]) == ("/models/llava", 512, "llava")
    assert values["eval_dataset"] == "marslora_validation" and values["dataset_dir"] == str(tmp_path)
    registry = json.loads((tmp_path / "dataset_info.json").read_text())
    assert registry["marslora_train"]["file_name"] == "train.jsonl"
    assert registry["marslora_validation"]["columns"] == {"messages": "messages", "images": "images"}


def test_axolotl_gets_the_whole_course_of_the_run(tmp_path):
    values = read_yaml(Axolotl, tmp_path, "axolotl.yaml")
    assert {name: values[name] for name in SCHEDULE} == SCHEDULE
    assert (values["micro_batch_size"], values["eval_batch_size"], values["sequence_len"]) == (8, 8, 512)
    assert (values["lr_scheduler"], values["optimizer"]) == ("warmup_stable_decay", "adamw_torch")
    assert values["test_datasets"][0]["path"] == str(tmp_path / "validation.jsonl")
    assert not any(values[name] for name in values if name.endswith("_kernel"))


def test_ms_swift_gets_the_whole_course_of_the_run(tmp_path):
    text = MsSwift().export(decision(), INFO, RUN, None, tmp_path)[0].read_text()
    words = shlex.split(text.partition("swift sft")[2].replace("\\\n", " "))
    values = {name[2:]: yaml.safe_load(value) for name, value in zip(words[::2], words[1::2], strict=True)}
    assert {name: values[name] for name in SCHEDULE} == SCHEDULE
    assert (values["model"], values["max_length"], values["val_dataset"]) == ("/models/llava", 512, "validation.jsonl")


def test_trl_gets_the_whole_course_of_the_run(tmp_path):
    text = Trl().export(decision(), INFO, RUN, None, tmp_path)[0].read_text()
    assert all(f"{name!r}: {value!r}," in text for name, value in SCHEDULE.items())
    assert 'main(model_path="/models/llava"' in text.replace("'", '"')
    assert 'eval_dataset=load_rows("validation.jsonl")' in text


@pytest.mark.parametrize("exporter", [Axolotl, LlamaFactory, MsSwift, Trl])
def test_a_tool_without_the_optimizer_says_so(exporter, tmp_path):
    run = RUN.model_copy(update={"optimizer": PluginSpec(name="muon")})
    assert "It has no optimizer `muon`" in exporter().export(decision(), INFO, run, None, tmp_path)[0].read_text()


FOUR = {
    Trl: ["BitsAndBytesConfig(", "load_in_4bit=True", "bnb_4bit_quant_type='nf4'", "'model.vision_tower'"],
    Axolotl: ["adapter: qlora", "load_in_4bit: true", "- model.vision_tower"],
    LlamaFactory: ["quantization_bit: 4", "quantization_type: nf4", "double_quantization: true"],
    MsSwift: ["--quant_bits 4", "--bnb_4bit_quant_type nf4", "--quant_method bnb"],
    Unsloth: ["load_in_4bit=True, load_in_8bit=False"],
    Vllm: ["held in 4 bits (nf4)", "`marslora merge`"],
    Peft: ["BitsAndBytesConfig(load_in_4bit=True", "'model.vision_tower'"],
}
EIGHT = {
    Trl: ["load_in_8bit=True"],
    Axolotl: ["adapter: lora", "load_in_8bit: true"],
    LlamaFactory: ["quantization_bit: 8"],
    MsSwift: ["--quant_bits 8"],
    Unsloth: ["load_in_4bit=False, load_in_8bit=True"],
    Vllm: ["held in 8 bits (int8)"],
    Peft: ["BitsAndBytesConfig(load_in_8bit=True"],
}


@pytest.mark.parametrize("exporter", FOUR)
def test_every_tool_is_told_of_a_base_in_4_or_8_bits(exporter, tmp_path):
    for method, expected in (("nf4", FOUR), ("int8", EIGHT)):
        run = RUN.model_copy(update={"quantize": method})
        text = exporter().export(decision(), INFO, run, None, tmp_path)[0].read_text()
        assert [words for words in expected[exporter] if words not in text] == [], text
        if exporter is Trl:
            compile(text, "sft.py", "exec")
    plain = exporter().export(decision(), INFO, RUN, None, tmp_path)[0].read_text()
    assert "held in" not in plain and "bit=True" not in plain and "quant" not in plain
