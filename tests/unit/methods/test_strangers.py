"""Nothing that a stranger's adapter names is imported, unless the user trusts it."""

import json
import pickle
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import marslora
from marslora import api, cli, pipeline
from marslora.core.errors import ConfigError, StudyError
from marslora.core.spec import FinalSpec, StudySpec
from marslora.finetune import __main__ as finetune
from marslora.methods._pattern_check import check_patterns
from marslora.run_options import RunOptions

EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Evil: pass\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "evilmod.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("evilmod", None)


def write_own(folder, name):
    plan = {"ranks": {}, "parts": {}, "num_steps": 1}
    saved = {"format": 2, "adapter": name, "options": {}, "plan": plan}
    (folder / "marslora_adapter.json").write_text(json.dumps(saved))
    save_file({}, folder / "marslora_adapter.safetensors")


def test_an_adapter_that_names_a_module_is_refused(folder):
    write_own(folder, "evilmod:Evil")
    with pytest.raises(StudyError, match=r"`adapter`: 'evilmod:Evil'.* pass `trust_remote_code=True`"):
        marslora.attach(nn.Linear(2, 2), folder)
    assert not (folder / "ran").exists()
    with pytest.raises(ConfigError, match="must be a subclass"):  # it is imported, and is no adapter
        marslora.attach(nn.Linear(2, 2), folder, trust_remote_code=True)
    assert (folder / "ran").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "evilmod"},
        {"peft_type": "PROMPT_TUNING", "tokenizer_name_or_path": "evil", "tokenizer_kwargs": {"trust_remote_code": 1}},
    ],
)
def test_a_configuration_of_peft_that_names_a_module_is_refused(folder, values):
    (folder / "adapter_config.json").write_text(json.dumps(values))
    with pytest.raises(StudyError, match="names code that is not marslora's"):
        marslora.attach(nn.Linear(2, 2), folder)
    assert not (folder / "ran").exists()


BOMBS = {
    "of characters": {"target_modules": r"(([a-z_.0-9])+)+!"},
    "key": {"target_modules": ["q_proj"], "rank_pattern": {r"((\w|\.)+)+!": 4}},
    "alternatives": {"exclude_modules": r"(a|a|\w|\w|[a-z.]|.)*!"},
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_pattern_that_matches_forever_is_refused_in_a_second(folder, bomb):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **BOMBS[bomb]}))
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")
    started = time.monotonic()
    with pytest.raises(StudyError, match="takes too long to match the names of modules"):
        marslora.attach(deep_model(), folder)
    assert time.monotonic() - started < 3  # one second on a machine that does nothing else


def deep_model():
    model = nn.Linear(2, 2)
    for name in ("q_proj", "self_attn", "layers_with_a_long_name", "language_model", "model", "base"):
        model = nn.ModuleDict({name: model})
    return model


def test_usual_patterns_are_matched(tmp_path):
    ranks = {rf".*\.{n}\.q_proj": 4 for n in range(64)}
    config = {"target_modules": r".*language.*\.(q_proj|v_proj)", "rank_pattern": ranks}
    names = [f"model.language_model.layers.{layer}.self_attn.{linear}_proj" for layer in range(64) for linear in "qkvo"]
    check_patterns(config, names, tmp_path)


def test_weights_in_a_pickle_are_not_opened(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "target_modules": ["a"]}))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Touch(folder / "ran")))
    with pytest.raises(StudyError, match=r"no weights.*can run code"):
        marslora.attach(nn.Linear(2, 2), folder)
    assert not (folder / "ran").exists()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


@pytest.mark.parametrize("field", ["adapter", "optimizer", "gradients", "function", "model"])
def test_a_plan_that_names_code_is_refused(folder, capsys, field):
    plan = PLAN.model_dump(mode="json")
    training = plan["training"]
    if field == "model":
        plan["model"]["trust_remote_code"] = True
    elif field == "function":
        training["objectives"] = [{"name": "a", "rows": "all"}, {"name": "b", "function": "evilmod:Evil"}]
    else:
        training["objectives"] = [{"name": "a", "rows": "text"}, {"name": "b", "rows": "pictures"}]
        training[field] = {"name": "evilmod:Evil"}
    (folder / "final.json").write_text(json.dumps(plan))
    assert finetune.main([str(folder / "final.json")]) == 2
    assert "names code that is not marslora's" in capsys.readouterr().err
    assert not (folder / "ran").exists()


PLAN = FinalSpec(
    model={"path": "m"},
    data={"train": "a"},
    training={},
    allocation={"language": 4},
    module_ranks={},
    full_examples=1,
    output_folder="o",
    cache_folder="c",
)


@pytest.mark.parametrize("words", [["report", "study"], ["export", "study"]])
def test_a_study_that_names_code_is_reported_and_exported_without_it(folder, monkeypatch, capsys, words):
    turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    Path("a.jsonl").write_text(40 * (json.dumps({"messages": turns}) + "\n"))
    for name in ("PREPARE", "RUN_PACK", "RUN_FINAL"):
        monkeypatch.setattr(pipeline, name, f"tests.helpers.fake_training:{name.lower()}")
    spec = {
        "model": {"path": "m"},
        "data": {"train": ["a.jsonl"]},
        "space": {"vision": [4], "projector": [4], "language": [4, 16]},
        "training": {"examples": 256},
        "search": {"strategy": {"name": "uniform"}},
    }
    api.run_study(StudySpec.parse(spec), RunOptions(study=folder / "study"))
    stored = json.loads((folder / "study" / "spec.json").read_text())
    evil = {"name": "evilmod:Evil"}
    stored["search"] |= {"strategy": evil, "adapter": evil}
    stored["training"] |= {"adapter": evil, "optimizer": evil}
    stored["model"]["trust_remote_code"] = True
    (folder / "study" / "spec.json").write_text(json.dumps(stored))
    monkeypatch.setattr(sys, "argv", ["marslora", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code, capsys.readouterr().err
    assert not (folder / "ran").exists()
