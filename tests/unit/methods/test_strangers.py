"""Nothing that a stranger's adapter names is imported, unless the user trusts it."""

import json
import sys

import pytest
from torch import nn

import marslora
from marslora.core.errors import ConfigError, StudyError

EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Evil: pass\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "evilmod.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("evilmod", None)


def write_own(folder, name):
    from safetensors.torch import save_file

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
