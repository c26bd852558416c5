import json

import pytest
import torch

from marslora.adapters import Checkpoint, _checkpoint, read_checkpoint, recover_checkpoints, write_checkpoints
from marslora.core.errors import StudyError
from marslora.core.patterns import lora_config_dict

CONFIG = lora_config_dict({"fc": 2}, 2.0)


def checkpoint(value):
    weights = {"fc.lora_A.weight": torch.full((2, 3), value), "fc.lora_B.weight": torch.zeros(4, 2)}
    return Checkpoint(weights, {"fc.lora_A.step": torch.tensor(value)}, {"examples": int(value)})


def written(root, value, names=("a", "b")):
    write_checkpoints(root, {name: (checkpoint(value), CONFIG) for name in names})


def values(root):
    return [read_checkpoint(root / name).state["examples"] for name in ("a", "b")]


def test_what_was_written_is_read(tmp_path):
    written(tmp_path, 3.0)
    found = read_checkpoint(tmp_path / "a")
    assert torch.equal(found.weights["fc.lora_A.weight"], torch.full((2, 3), 3.0))
    assert float(found.moments["fc.lora_A.step"]) == 3.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_nothing_there_is_none(tmp_path):
    assert read_checkpoint(tmp_path / "a") is None


@pytest.mark.parametrize("calls_until_crash", range(1, 6))
def test_a_crash_leaves_all_old_or_all_new(tmp_path, monkeypatch, calls_until_crash):
    written(tmp_path, 1.0)
    calls = 0

    def crashing(real):
        def rename(*args):
            nonlocal calls
            calls += 1
            if calls == calls_until_crash:
                raise KeyboardInterrupt
            return real(*args)

        return rename

    with monkeypatch.context() as patch:
        for name in ("rename", "replace"):
            patch.setattr(_checkpoint.Path, name, crashing(getattr(_checkpoint.Path, name)))
        try:
            written(tmp_path, 2.0)
        except KeyboardInterrupt:
            pass
        else:
            assert calls < calls_until_crash
    recover_checkpoints(tmp_path, ["a", "b"])
    assert values(tmp_path) in ([1, 1], [2, 2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_other_members_are_left_alone_by_recovery(tmp_path):
    written(tmp_path, 1.0)
    (tmp_path / ".next-c").mkdir()
    recover_checkpoints(tmp_path, ["a", "b"])
    assert (tmp_path / ".next-c").exists() and values(tmp_path) == [1, 1]


def test_a_damaged_checkpoint_is_named(tmp_path):
    written(tmp_path, 1.0)
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(StudyError, match="Remove the folder"):
        read_checkpoint(tmp_path / "a")
