"""The final run from spec to adapter, on a tiny LLaVA."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageTextToText

from marslora.core.errors import ConfigError, MissingDependencyError, TrainingError
from marslora.core.runs import FinalResult, ProgressEvent
from marslora.core.schedule import rate_factor
from marslora.data.rows import load_encoded_splits
from marslora.finetune.worker import run_final
from marslora.models.loading import load
from tests.helpers.exactness import EXACT, assert_exact, assert_twins, keep_float64
from tests.unit.finetune.conftest import maker
from tests.unit.finetune.tiny import distance, plain_model, run, weights


def peft_loss(model, batch):
    """Mean nats per answer token, by transformers' own loss."""
    with torch.no_grad():
        return float(model.eval()(**batch).loss)


def test_a_run_learns_and_reports(final_spec):
    spec = final_spec()
    events = run(spec)
    result = events[-1]
    assert isinstance(result, FinalResult)
    assert result.validation_loss < result.base_validation_loss - 0.2
    assert result.validation_accuracy > result.base_validation_accuracy
    assert result.test_loss < result.base_test_loss - 0.2
    assert result.examples == (0, 8, 16, 24, 32, 40)
    assert len(result.validation_curve) == 6
    assert result.validation_curve[0] == result.base_validation_loss
    assert result.validation_loss == result.validation_curve[-1]
    assert result.train_examples[-1] == 40 and len(result.train_examples) == len(result.train_curve)
    assert result.train_curve[-1] < result.train_curve[0]
    last = [e for e in events if isinstance(e, ProgressEvent)][-1]
    assert last.detail.startswith(f"validation loss {result.validation_loss:.3f}, training loss ")
    assert [e.done for e in events if isinstance(e, ProgressEvent)][-1] == 40
    assert (result.cost.examples, result.cost.validation_examples) == (40, 5 * 16)
    assert result.cost.flops > 6 * 40 * result.num_trainable
    assert result.num_trainable == sum(tensor.numel() for tensor in weights(spec).values())
    assert FinalResult.load(Path(spec.output_folder) / "final.json") == result


def test_peft_alone_gives_the_same_loss_also_merged(world, no_dropout):
    spec, result = no_dropout, run(no_dropout)[-1]
    rows = load_encoded_splits(spec.data, load(spec.model).processor, spec.cache_folder).validation
    batch = rows.batch(range(len(rows)))
    model = PeftModel.from_pretrained(plain_model(world), result.adapter_folder)
    with keep_float64():
        assert peft_loss(model, batch) == pytest.approx(result.validation_loss, rel=EXACT)
        assert peft_loss(model.merge_and_unload(), batch) == pytest.approx(result.validation_loss, rel=EXACT)


def test_ranks_and_scale_in_the_adapter_are_the_allocations(final_spec):
    spec = final_spec(training={"alpha_over_rank": 3.0})
    run(spec)
    for name, rank in spec.module_ranks.items():
        assert weights(spec)[f"base_model.model.{name}.lora_A.weight"].shape[0] == rank
    model = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(spec.model.path), Path(spec.output_folder) / "adapter"
    )
    scales = {module.scaling["default"] for module in model.modules() if isinstance(module, LoraLayer)}
    assert scales == {3.0}


def test_the_model_is_left_as_it_was(final_spec):
    spec = final_spec(training={"full": ("projector",), "gradient_checkpointing": True})
    model = load(spec.model).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(spec)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_it_is_the_loop_anyone_would_write(world, info, tmp_path):
    """50 lines of torch and PEFT, started from the same adapter, end where the final run ends."""
    training = {"warmup": 0.25, "decay": 0.25, "weight_decay": 0.1, "clip_norm": 0.5, "dropout": 0}

    def train(dtype):
        spec = maker(world, info, tmp_path / str(dtype), dtype)(training=training)
        start = first_checkpoint(spec, plain_model(world, dtype))
        twin = plain_loop(spec, plain_model(world, dtype), start, steps=range(5))
        continued = spec.model_copy(update={"start_folder": str(start)})
        run(continued)
        return [weights(continued)], [twin]

    assert_twins(train)


def test_a_calibration_run_is_continued_as_if_it_had_never_stopped(world, exact_spec, tmp_path):
    spec = exact_spec(training={"warmup": 0.25, "decay": 0.25, "dropout": 0})
    first = first_checkpoint(spec, plain_model(world))
    halfway = tmp_path / "member"
    plain_loop(spec, plain_model(world), first, steps=range(3), save_to=halfway)
    whole = plain_loop(spec, plain_model(world), first, steps=range(5))
    continued = spec.model_copy(update={"start_folder": str(halfway)})
    result = run(continued)[-1]
    assert_exact(weights(continued), whole)
    assert result.started_at_examples == 24
    assert result.examples == (24, 32, 40)
    assert (result.cost.examples, result.cost.validation_examples) == (16, 2 * 16)


def first_checkpoint(spec, model):
    """A member's checkpoint before its first step: adapter, moments of zero, state."""
    from peft import LoraConfig, get_peft_model

    folder = Path(spec.output_folder).with_name("first")
    torch.manual_seed(1)
    ranks = spec.module_ranks
    config = LoraConfig(
        r=1,
        target_modules=list(ranks),
        rank_pattern=ranks,
        alpha_pattern={name: rank * spec.training.alpha_over_rank for name, rank in ranks.items()},
    )
    save_member(get_peft_model(model, config), None, folder, 0)
    return folder


def plain_loop(spec, model, start, steps, save_to=None):
    """Train the adapter in ``start`` with nothing but torch and PEFT; its weights."""
    model = PeftModel.from_pretrained(model, start, is_trainable=True)
    training, total = spec.training, spec.full_examples // spec.training.batch_size
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=training.weight_decay)
    rows = load_encoded_splits(spec.data, load(spec.model).processor, spec.cache_folder)
    batches = list(rows.steps(training, spec.order_seed, 0, spec.full_examples))
    model.eval()
    for step in steps:
        batch = rows.train.batch(batches[step])
        labels = batch.pop("labels")
        logits = model(**batch).logits[:, :-1].flatten(0, 1)
        cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100).backward()
        torch.nn.utils.clip_grad_norm_(parameters, training.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * rate_factor(step, total, training, decays=True)
        optimizer.step()
        optimizer.zero_grad()
    if save_to is not None:
        save_member(model, optimizer, save_to, len(steps))
    return {name.replace(".default", ""): value for name, value in model.state_dict().items() if "lora_" in name}


def save_member(model, optimizer, folder, step):
    from safetensors.torch import save_file

    model.save_pretrained(folder)
    moments = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = name.removeprefix("base_model.model.").removesuffix(".default.weight")
            for moment in ("exp_avg", "exp_avg_sq"):
                state = optimizer.state[parameter][moment] if optimizer else torch.zeros_like(parameter)
                moments[f"{key}.{moment}"] = state.contiguous()
    save_file(moments, folder / "optimizer.safetensors")
    (folder / "state.json").write_text(json.dumps({"examples": step * 8, "step": step}))


def test_accumulation_changes_nothing(exact_spec, no_dropout):
    pieces = exact_spec("pieces", training={"accumulation": 4, "dropout": 0.0})
    run(pieces)
    assert_exact(weights(pieces), weights(no_dropout))


def test_gradient_checkpointing_recomputes_and_changes_nothing(exact_spec):
    plain, saving = exact_spec("plain"), exact_spec("saving", training={"gradient_checkpointing": True})
    counts = []
    for spec in (plain, saving):
        layer = load(spec.model).model.get_decoder().layers[0]
        calls = []
        handle = layer.mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(torch.is_grad_enabled()))
        run(spec)
        handle.remove()
        counts.append(len(calls))
    assert counts[1] == counts[0] + 6
    assert_exact(weights(saving), weights(plain))


def test_parts_learn_at_their_own_rates(final_spec):
    spec = final_spec(training={"part_learning_rates": {"vision": 0.0}})
    run(spec)
    moved = {name: bool(tensor.any()) for name, tensor in weights(spec).items() if "lora_B" in name}
    assert all(changed != ("vision_tower" in name) for name, changed in moved.items())


def test_a_part_can_be_trained_whole(world, exact_spec):
    spec = exact_spec(training={"full": ("projector",)})
    result = run(spec)[-1]
    whole = [name for name in weights(spec) if "lora_" not in name]
    assert len(whole) == 4
    assert all("multi_modal_projector" in name for name in whole)
    model = PeftModel.from_pretrained(plain_model(world), result.adapter_folder)
    rows = load_encoded_splits(spec.data, load(spec.model).processor, spec.cache_folder).validation
    assert peft_loss(model, rows.batch(range(len(rows)))) == pytest.approx(result.validation_loss, rel=EXACT)


@pytest.mark.parametrize(
    "until", [pytest.param(8, marks=pytest.mark.slow), 24, pytest.param(40, marks=pytest.mark.slow)]
)
def test_a_run_that_dropped_dead_ends_as_if_it_had_not(final_spec, whole, until):
    broken, expected = final_spec("broken"), run(whole)[-1]
    run(broken, until=until)
    assert not (Path(broken.output_folder) / "final.json").exists()
    result = run(broken)[-1]
    assert distance(weights(whole), weights(broken)) == 0
    assert result.validation_curve == expected.validation_curve
    assert result.examples == expected.examples


def test_a_half_written_checkpoint_is_not_used(final_spec, whole):
    broken = final_spec("broken")
    run(broken, until=32)
    checkpoints = Path(broken.output_folder) / "checkpoints"
    last = checkpoints / "checkpoint-3"
    (last / "progress.json").unlink()
    (last / "adapter_model.safetensors").write_bytes(b"torn")
    run(broken)
    assert distance(weights(whole), weights(broken)) == 0


def test_ctrl_c_leaves_a_checkpoint_of_the_step_it_came_in(final_spec, whole):
    stopped = final_spec("stopped")

    def emit(event):
        if isinstance(event, ProgressEvent) and event.done == 24:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="run the command again to continue"):
        run_final(stopped, emit)
    assert signal.getsignal(signal.SIGINT) is before
    assert (Path(stopped.output_folder) / "checkpoints" / "checkpoint-3" / "progress.json").exists()
    run(stopped)
    assert distance(weights(whole), weights(stopped)) == 0


def test_a_finished_run_is_not_run_again(whole):
    (result,) = run(whole)
    assert run(whole.model_copy(update={"report_to": ("trackio",)})) == [result]


def test_a_finished_run_whose_adapter_is_gone_makes_it_again(final_spec, whole):
    spec = final_spec()
    shutil.copytree(whole.output_folder, spec.output_folder)
    shutil.rmtree(Path(spec.output_folder) / "adapter")
    run(spec)
    assert distance(weights(spec), weights(whole)) == 0


def test_another_spec_in_the_same_folder_starts_anew(final_spec, whole):
    run(final_spec("one", full_examples=16, training={"dropout": 0.1}), until=16)
    other = final_spec("one")
    run(other)
    assert distance(weights(other), weights(whole)) == 0


def test_a_loss_that_is_no_number_stops_the_run(final_spec):
    with pytest.raises(TrainingError, match=r"loss became (nan|inf) at step \d+ .*Lower `learning_rate`"):
        run(final_spec(training={"learning_rate": 1e30}))


def test_trackers_are_checked_first(final_spec):
    with pytest.raises(ConfigError, match=r"must name trackers that `transformers` knows, .*; found `wandbb`"):
        run(final_spec(report_to=("wandbb",)))
    with pytest.raises(MissingDependencyError, match="pip install dvclive"):
        run(final_spec(report_to=("dvclive",)))


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"part_learning_rates": {"eyes": 1.0}}, r"`part_learning_rates` must name parts of"),
        ({"optimizer": {"name": "sgdd"}}, "`sgdd` is not a plugin in marslora.optim"),
    ],
)
def test_wrong_settings_are_named(final_spec, training, message):
    with pytest.raises(ConfigError, match=message):
        run(final_spec(training=training))


def test_an_allocation_that_adapts_nothing_is_refused(final_spec):
    from marslora.core.allocation import Allocation

    with pytest.raises(ConfigError, match="adapts no linear layer"):
        run(final_spec(allocation=Allocation.of(vision=0, projector=0, language=0)))
