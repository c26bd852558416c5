"""Final runs with adapters other than LoRA, on a tiny LLaVA whose rows name tasks."""

import copy
import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from marslora import methods
from marslora.api import attach
from marslora.core import plugins
from marslora.core.errors import ConfigError, DataError
from marslora.core.spec import DataSpec
from marslora.finetune.labels import label_rows
from marslora.finetune.method_steps import MethodSteps
from marslora.finetune.model import find_method
from marslora.models.loading import load
from tests.helpers.exactness import EXACT
from tests.unit.finetune.test_processes import ENVIRONMENT, TWO_PROCESSES, run_on_two, written
from tests.unit.finetune.tiny import run


@pytest.fixture(scope="module")
def data(world):
    """The world's rows with a column ``task``."""
    paths = {}
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (world / f"{split}.jsonl").read_text().splitlines()]
        for row in rows:
            row["task"] = "long" if row["messages"][1]["content"].startswith("it") else "short"
        paths[split] = world / f"{split}-tasks.jsonl"
        paths[split].write_text("\n".join(map(json.dumps, rows)))
    return DataSpec(**{split: (str(path),) for split, path in paths.items()})


@pytest.fixture
def spec_with(final_spec, data):
    return specs(final_spec, data)


@pytest.fixture
def exact_spec_with(exact_spec, data):
    """Makes specs of runs in float64."""
    return specs(exact_spec, data)


def specs(final_spec, data):
    def make(name, adapter, options=None, **more):
        training = {"adapter": {"name": adapter, "options": options or {}}, "dropout": 0.0, **more.pop("training", {})}
        return final_spec(name, training=training, data=data, **more)

    return make


def state_of(spec):
    """What the run's last checkpoint holds."""
    newest = max(Path(spec.output_folder, "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    return load_file(newest / "adapter_state.safetensors")


def test_every_row_trains_the_head_of_its_task(spec_with, data):
    spec = spec_with("tasks", "asymlora", full_examples=80)
    result = run(spec)[-1]
    assert result.validation_loss < result.base_validation_loss - 0.1
    model = load(spec.model).model
    adapter = Path(spec.output_folder) / "adapter"
    saved = load_file(adapter / "marslora_adapter.safetensors")
    heads = [name for name in saved if name.endswith("q_proj.lora_B.0")]
    assert heads and all(not torch.equal(saved[name], saved[name[:-1] + "1"]) for name in heads)
    change = attach(model, adapter)
    assert change.plan.tasks == ("long", "short")
    assert sum(one.parameter.numel() for one in change.trainables()) == result.num_trainable
    change.remove()
    assert sorted(folder.name for folder in (adapter / "tasks").iterdir()) == ["long", "short"]


def test_tasks_lie_beside_their_rows(spec_with, data):
    from marslora.data.rows import load_encoded_splits

    spec = spec_with("labels", "asymlora")
    rows = load_encoded_splits(spec.data, load(spec.model).processor, spec.cache_folder)
    found = label_rows(rows, spec.data, find_method(spec.training))
    assert found.tasks == ("long", "short")
    batch = found.train.batch([0, 1, 2, 3])
    answers = [json.loads(line)["task"] for line in Path(data.train[0]).read_text().splitlines()[:4]]
    assert [found.tasks[place] for place in batch["task_of_row"]] == answers
    assert batch["task_of_unit"].tolist() == batch["task_of_row"].tolist()
    moka = label_rows(rows, spec.data, find_method(spec_with("q", "moka").training)).train.batch([0, 1])
    asked = moka["question_tokens"]
    assert bool(((moka["labels"] != -100) & asked).any()) is False
    assert asked.any() and bool((asked <= moka["attention_mask"].bool()).all())


def test_rows_without_a_task_or_with_a_new_one_are_refused(spec_with, data, tmp_path):
    spec = spec_with("no", "asymlora", {"column": "kind"})
    with pytest.raises(DataError, match="no column `kind`"):
        run(spec)
    strange = tmp_path / "strange.jsonl"
    rows = Path(data.validation[0]).read_text().replace('"task": "long"', '"task": "new"')
    strange.write_text(rows.replace("pictures/", f"{Path(data.train[0]).parent}/pictures/"))
    spec = spec_with("new", "asymlora").model_copy(
        update={"data": data.model_copy(update={"validation": (str(strange),), "allow_outside": True})}
    )
    with pytest.raises(DataError, match=r"which have \['long', 'short'\]; found \['new'\]"):
        run(spec)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("adapter", "options"),
    [
        pytest.param("adalora", {"interval": 1}, marks=slow),
        ("geolora", {"cycles": 2}),
        pytest.param("pissa", {}, marks=slow),
        pytest.param("asymlora", {}, marks=slow),
    ],
)
def test_a_run_that_was_killed_ends_where_it_would_have(spec_with, adapter, options):
    whole, killed = (spec_with(name, adapter, options, full_examples=48) for name in ("whole", "killed"))
    expected = run(whole)[-1]
    run(killed, until=24)
    found = run(killed)[-1]
    first, second = state_of(whole), state_of(killed)
    assert first.keys() == second.keys()
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())
    assert found.validation_loss == expected.validation_loss


def test_adaloras_allocator_runs_at_every_step_of_trainer(spec_with, monkeypatch):
    sums = []
    after = MethodSteps.on_optimizer_step

    def watch(self, *args, **kwargs):
        after(self, *args, **kwargs)
        sums.append(sum(self.change.ranks().values()))

    monkeypatch.setattr(MethodSteps, "on_optimizer_step", watch)
    spec = spec_with("ranks", "adalora", {"interval": 1}, full_examples=80)
    run(spec)
    budget = sum(spec.module_ranks.values())
    assert len(sums) == 10 and sums[0] > budget and sums[-1] == budget
    config = json.loads(Path(spec.output_folder, "adapter/adapter_config.json").read_text())
    assert len({config["r"], *config["rank_pattern"].values()}) > 2


def test_the_load_balance_is_part_of_the_loss_once_whatever_the_accumulation(spec_with):
    """With a balance that outweighs all, routers learn the same from one batch as from its pieces."""
    options = {"gate": "none", "balance": "mole", "balance_weight": 100.0}
    routers = []
    for pieces in (1, 4):
        spec = spec_with(f"pieces{pieces}", "llava_mole", options, training={"accumulation": pieces, "clip_norm": 0})
        run(spec)
        routers.append({name: tensor for name, tensor in state_of(spec).items() if ".router." in name})
    assert routers[0]
    for name, tensor in routers[0].items():
        assert float((tensor - routers[1][name]).abs().max()) < 0.05 * float(tensor.abs().max())


def test_it_combines_with_several_objectives(spec_with):
    objectives = [{"name": "short", "rows": "task=short"}, {"name": "long", "rows": "task=long"}]
    training = {"objectives": objectives, "gradients": {"name": "pareto_lora"}}
    result = run(spec_with("both", "asymlora", {"form": "mixture"}, training=training))[-1]
    assert result.validation_loss < result.base_validation_loss


def test_the_model_is_left_as_it_was(spec_with):
    spec = spec_with("left", "geolora")
    model = load(spec.model).model
    before = {name: one.clone() for name, one in model.state_dict().items()}
    modules = [name for name, _ in model.named_modules()]
    run(spec)
    assert [name for name, _ in model.named_modules()] == modules
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert not model._forward_pre_hooks and not any(one.requires_grad for one in model.parameters())


def test_calibration_runs_and_stacked_experts_are_refused(spec_with, tmp_path):
    (tmp_path / "state.json").write_text('{"examples": 8, "step": 1}')
    with pytest.raises(ConfigError, match="cannot continue the calibration run in `start_folder`"):
        run(spec_with("start", "pissa").model_copy(update={"start_folder": str(tmp_path)}))
    with pytest.raises(ConfigError, match="cannot adapt stacked experts"):
        run(spec_with("stacked", "pissa").model_copy(update={"stacked": ("x",)}))
    with pytest.raises(ConfigError, match="nonsense"):
        run(spec_with("options", "pissa", {"nonsense": 1}))


def test_a_folder_of_a_task_is_served_as_it_is(spec_with):
    spec = spec_with("served", "asymlora")
    run(spec)
    model = copy.deepcopy(load(spec.model).model)
    plain = attach(model, Path(spec.output_folder, "adapter", "tasks", "long"))
    assert type(plain).__name__.startswith("Peft")
    assert {name.rpartition(".")[2] for name, _ in plain.named_parameters() if "lora_" in name} == {"weight"}


@slow
@pytest.mark.parametrize("adapter", ["asymlora", "adalora"])
def test_two_processes_do_what_one_does(world, exact_spec_with, adapter):
    one, two = (exact_spec_with(name, adapter) for name in ("one", "two"))
    run_on_two(two, world)
    assert run(two)[-1].validation_loss == pytest.approx(run(one)[-1].validation_loss, rel=EXACT)


@slow
def test_two_processes_balance_as_one_does(spec_with):
    """Routers are float32 in any model: what two processes end apart is nothing beside what they learned."""
    one, two = (spec_with(name, "llava_mole") for name in ("one", "two"))
    subprocess.run([*TWO_PROCESSES, "-m", "marslora.finetune", written(two)], check=True, env=ENVIRONMENT)
    alone, together = (run(spec)[-1] for spec in (one, two))
    learned = alone.base_validation_loss - alone.validation_loss
    assert abs(together.validation_loss - alone.validation_loss) < 1e-3 * learned


@pytest.fixture(scope="module")
def mixed(world, data):
    """Two of three training rows have lost their picture, so that a process may see none in a step."""
    path = world / "mixed.jsonl"
    rows = [json.loads(line) for line in (world / "train-tasks.jsonl").read_text().splitlines()]
    for row in (row for index, row in enumerate(rows) if index % 3):
        del row["images"]
    path.write_text("\n".join(map(json.dumps, rows)))
    return data.model_copy(update={"train": (str(path),)})


@slow
@pytest.mark.parametrize("adapter", ["lora", "asymlora", "moka", "adalora", "llava_mole"])
def test_two_processes_train_rows_of_which_few_have_a_picture(spec_with, mixed, adapter):
    """In batches of two, one for each process; what they end apart is nothing beside what they learned."""
    small = {"batch_size": 2, "learning_rate": 5e-3}
    one, two = (spec_with(name, adapter, training=small).model_copy(update={"data": mixed}) for name in ("one", "two"))
    command = [*TWO_PROCESSES, "-m", "marslora.finetune", written(two)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    alone, together = (run(spec)[-1] for spec in (one, two))
    learned = abs(alone.base_validation_loss - alone.validation_loss)
    assert abs(together.validation_loss - alone.validation_loss) < 1e-2 * learned


@slow
def test_geolora_says_that_it_wants_one_process(spec_with):
    command = [*TWO_PROCESSES, "-m", "marslora.finetune", written(spec_with("geo", "geolora"))]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode != 0
    assert "trains in one process only" in done.stderr


@slow
@pytest.mark.parametrize("adapter", plugins.names(methods))
def test_half_precision_trains_float32_beside_the_model(spec_with, adapter):
    spec = spec_with(adapter, adapter)
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": "bfloat16"})})
    result = run(spec)[-1]
    assert result.validation_loss < result.base_validation_loss + 0.01
    state = state_of(spec)
    assert {tensor.dtype for name, tensor in state.items() if name.startswith("trained.")} == {torch.float32}
