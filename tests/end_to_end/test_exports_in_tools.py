"""The exports of a study train two steps in the tools themselves, each in an environment of its own.

The tools need versions of `transformers` that exclude one another. ``MARSLORA_TOOLS`` names a folder with one virtual
environment for each, made once:

    python -m venv $MARSLORA_TOOLS/trl && $MARSLORA_TOOLS/trl/bin/pip install trl==1.16.0 torchvision
    python -m venv $MARSLORA_TOOLS/llama_factory && $MARSLORA_TOOLS/llama_factory/bin/pip install llamafactory==0.9.5
    python -m venv $MARSLORA_TOOLS/ms_swift && $MARSLORA_TOOLS/ms_swift/bin/pip install ms-swift==4.6.0 torchvision
    python -m venv $MARSLORA_TOOLS/axolotl && $MARSLORA_TOOLS/axolotl/bin/pip install axolotl==0.19.0

A test whose environment is missing is skipped.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from marslora.core.runs import Prepared
from marslora.exports import describe_run, export_decision
from marslora.store.study import Study
from tests.unit.deployment.conftest import train

pytestmark = pytest.mark.slow
SECONDS = 1500


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A study of 32 examples in two steps, exported with its rows."""
    decision = train(tmp_path_factory.mktemp("tools"), examples=32, ranks=["vision=4", "language=16"])
    study = Study.open(decision.folder)
    export_decision(study, with_rows=True)
    return study


def run_tool(name, command, folder, **environment):
    """Run a tool's command in its environment; its output is shown if it fails."""
    home = Path(os.environ.get("MARSLORA_TOOLS", "")) / name / "bin"
    if not (home / "python").exists():
        pytest.skip(f"no environment {name} in the folder that MARSLORA_TOOLS names")
    variables = {**os.environ, "PATH": f"{home}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    ended = subprocess.run(
        command, cwd=folder, env={**variables, **environment}, capture_output=True, text=True, timeout=SECONDS
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


def check_ranks(path, study):
    """The trained weights have the chosen ranks, and have been trained."""
    weights = load_file(path)
    info, chosen = study.read("prepared.json", Prepared).info, {"vision": 4, "language": 16}
    for part, rank in chosen.items():
        for linear in info.part(part).alive:
            assert weights[f"base_model.model.{linear.name}.lora_A.weight"].shape[0] == rank
            assert weights[f"base_model.model.{linear.name}.lora_B.weight"].any(), linear.name


def wanted(study):
    values = describe_run(study, study.read("prepared.json", Prepared)).trainer_arguments()
    return json.loads(json.dumps(values))


READ_ARGUMENTS = """
import json, sys, torch
saved = torch.load(sys.argv[1], weights_only=False)
names = json.loads(sys.argv[2])
print(json.dumps({name: getattr(getattr(saved, name), "value", getattr(saved, name)) for name in names}))
"""


def check_arguments(name, path, study, **other):
    """The arguments with which the tool's trainer ran are those of the final run."""
    expected = {**wanted(study), **other}
    command = ["python", "-c", READ_ARGUMENTS, str(path), json.dumps(list(expected))]
    assert json.loads(run_tool(name, command, path.parent).splitlines()[-1]) == expected


def test_trl(exported):
    folder = exported.path("exports", "trl")
    run_tool("trl", ["python", "-c", "import sft; sft.main(use_cpu=True)"], folder)
    check_ranks(folder / "trained" / "adapter_model.safetensors", exported)
    check_arguments("trl", folder / "trained" / "training_args.bin", exported)


def test_llama_factory(exported):
    folder = exported.path("exports", "llama_factory")
    values = yaml.safe_load((folder / "llama_factory.yaml").read_text())
    (folder / "cpu.yaml").write_text(yaml.safe_dump({**values, "use_cpu": True}))
    run_tool("llama_factory", ["llamafactory-cli", "train", "cpu.yaml"], folder)
    check_ranks(folder / "trained" / "adapter_model.safetensors", exported)
    course = {"num_stable_steps": 0, "num_decay_steps": 1, "decay_type": "linear"}
    check_arguments("llama_factory", folder / "trained" / "training_args.bin", exported, lr_scheduler_kwargs=course)


def test_ms_swift(exported):
    folder = exported.path("exports", "ms_swift")
    command = (folder / "ms_swift.sh").read_text().rstrip() + " --use_cpu true\n"
    (folder / "cpu.sh").write_text(command)
    run_tool("ms_swift", ["sh", "cpu.sh"], folder, USE_HF="1")
    (weights,) = folder.glob("trained/*/checkpoint-2/adapter_model.safetensors")
    check_ranks(weights, exported)
    check_arguments("ms_swift", weights.with_name("training_args.bin"), exported)


def test_axolotl_reads_the_settings_as_they_are_meant(exported):
    """No step is run: its command needs packages that a CPU lacks."""
    code = (
        "import json, yaml\nfrom axolotl.utils.schemas.config import AxolotlInputConfig as Schema\n"
        "read = Schema(**yaml.safe_load(open('axolotl.yaml'))).model_dump(mode='json')\nprint(json.dumps(read))"
    )
    read = json.loads(run_tool("axolotl", ["python", "-c", code], exported.path("exports", "axolotl")).splitlines()[-1])
    expected = wanted(exported)
    names = {"per_device_train_batch_size": "micro_batch_size", "lr_scheduler_type": "lr_scheduler"}
    names |= {"per_device_eval_batch_size": "eval_batch_size"}
    for name in set(expected) - {"data_seed", "eval_strategy"}:
        assert read[names.get(name, name)] == expected[name], name
    assert not any(read[name] for name in ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"))
