"""A final run with several objectives, on a tiny LLaVA."""

import json
from pathlib import Path

import pytest
import torch

from marslora.core.errors import ConfigError, TrainingError
from marslora.core.runs import GRADIENTS, BlockGradient, FinalResult
from marslora.core.spec import DataSpec, ObjectiveSpec, PluginSpec, TrainingSpec
from marslora.finetune import separate_trainer
from marslora.finetune.gradient_log import GradientLog
from marslora.finetune.objectives import Objectives
from marslora.finetune.separate_trainer import SeparateTrainer
from marslora.models.answers import AnswerOutputs, Batch, token_nats
from tests.helpers.exactness import EXACT, assert_exact, keep_float64
from tests.unit.finetune.conftest import maker
from tests.unit.finetune.test_processes import run_on_two
from tests.unit.finetune.tiny import distance, run, weights

BY_TASK = [{"name": "short", "rows": "task=short"}, {"name": "long", "rows": "task=long"}]
BY_MEDIA = [{"name": "text", "rows": "text"}, {"name": "image", "rows": "pictures"}]


@pytest.fixture(scope="module")
def data(world):
    """The world's rows with a column ``task``; every fourth has lost its picture."""
    path = world / "tasks.jsonl"
    rows = [json.loads(line) for line in (world / "train.jsonl").read_text().splitlines()]
    for index, row in enumerate(rows):
        row["task"] = "long" if row["messages"][1]["content"].startswith("it") else "short"
        if index % 4 == 0:
            del row["images"]
    path.write_text("\n".join(map(json.dumps, rows)))
    return DataSpec(train=(str(path),), validation=(str(world / "validation.jsonl"),))


@pytest.fixture
def spec_with(world, info, data, tmp_path):
    return specs(world, info, data, tmp_path)


@pytest.fixture
def exact_spec_with(world, info, data, tmp_path):
    """Makes specs of runs in float64."""
    with keep_float64():
        yield specs(world, info, data, tmp_path, torch.float64)


def specs(world, info, data, folder, dtype=torch.float32):
    final_spec = maker(world, info, folder, dtype)

    def make(name, objectives=(), kind="sum", options=None, **training):
        gradients = PluginSpec(name=kind, options=options or {})
        settings = {"objectives": objectives, "gradients": gradients, "dropout": 0.0, **training}
        return final_spec(name, training=settings, data=data)

    return make


def notes_of(spec):
    path = Path(spec.output_folder) / GRADIENTS
    return [BlockGradient.model_validate_json(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def ordinary(world, info, data, tmp_path_factory):
    """The spec of an ordinary run in float64, which has been run."""
    spec = specs(world, info, data, tmp_path_factory.mktemp("ordinary"), torch.float64)("ordinary")
    with keep_float64():
        run(spec)
    return spec


@pytest.mark.parametrize("objectives", [BY_TASK, BY_MEDIA], ids=["task", "media"])
def test_the_sum_of_all_rows_trains_what_the_ordinary_trainer_does(exact_spec_with, ordinary, objectives):
    spec = exact_spec_with("sum", objectives)
    result = run(spec)[-1]
    assert isinstance(result, FinalResult)
    assert_exact(weights(spec), weights(ordinary))
    assert result.validation_loss == pytest.approx(run(ordinary)[-1].validation_loss, rel=EXACT)
    notes = notes_of(spec)
    assert [note.step for note in notes] == [0, 1, 2, 3, 4]
    assert max((note.objectives for note in notes), key=len) == tuple(objective["name"] for objective in objectives)
    assert result.cost.flops > run(ordinary)[-1].cost.flops


def test_a_step_of_plain_descent_is_the_ordinary_trainers(exact_spec_with, monkeypatch):
    """The gradient that reaches the optimizer, clipped, in every step."""
    seen = {}

    def keep(self, model, kept=seen):
        norm = clip(self, model)
        grads = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        kept.setdefault(type(self).__name__, []).append(grads)
        for parameter in self.model.parameters():
            parameter.grad = None  # nothing is learned: every step stands at the same point
        return norm

    clip = separate_trainer.FinalTrainer._clip_grad_norm
    monkeypatch.setattr(separate_trainer.FinalTrainer, "_clip_grad_norm", keep)
    for name, objectives in (("plain", ()), ("apart", BY_TASK)):
        run(exact_spec_with(name, objectives, clip_norm=0.5))
    plain, apart = seen["FinalTrainer"], seen["SeparateTrainer"]
    assert len(plain) == len(apart) == 5
    for expected, found in zip(plain, apart, strict=True):
        assert_exact(found, expected)


@pytest.mark.parametrize("kind", ["mgda", pytest.param("gradnorm", marks=pytest.mark.slow)])
def test_accumulation_changes_nothing(exact_spec_with, kind):
    specs = [exact_spec_with(f"{kind}{pieces}", BY_TASK, kind, accumulation=pieces) for pieces in (1, 4)]
    losses = [run(spec)[-1].validation_loss for spec in specs]
    assert_exact(weights(specs[1]), weights(specs[0]))
    assert losses[1] == pytest.approx(losses[0], rel=EXACT)


def test_combining_otherwise_trains_otherwise_and_learns(exact_spec_with, ordinary):
    spec = exact_spec_with("pareto", BY_TASK, "pareto_lora", {"tau": 0.5})
    result = run(spec)[-1]
    assert result.validation_loss < result.base_validation_loss - 0.1
    assert distance(weights(ordinary), weights(spec)) > 1e-2
    lower = [note for note in notes_of(spec) if note.block.endswith("lower")]
    assert {note.case for note in lower} <= {"conflict", "imbalance", "sum", "alone"}
    assert {note.case for note in notes_of(spec) if not note.block.endswith("lower")} <= {"plain", "alone"}


@pytest.mark.slow
def test_recomputed_activations_change_nothing(exact_spec_with):
    specs = [
        exact_spec_with(str(wanted), BY_MEDIA, "imtl_g", gradient_checkpointing=wanted, full=("projector",))
        for wanted in (False, True)
    ]
    for spec in specs:
        run(spec)
    assert_exact(*map(weights, specs))


def test_a_stopped_run_goes_on_with_the_combiners_state(exact_spec_with):
    whole, stopped = (exact_spec_with(name, BY_TASK, "gradnorm", {"lr": 0.3}) for name in ("whole", "stopped"))
    run(whole)
    run(stopped, until=24)
    run(stopped)
    assert_exact(weights(stopped), weights(whole))
    assert [note.model_dump(exclude={"norms"}) for note in notes_of(stopped)] == [
        note.model_dump(exclude={"norms"}) for note in notes_of(whole)
    ]


@pytest.mark.slow
def test_two_processes_combine_what_one_does(world, exact_spec_with):
    one, two = (exact_spec_with(name, BY_MEDIA, "mgda") for name in ("one", "two"))
    run(one)
    run_on_two(two, world)
    assert_exact(weights(two), weights(one))
    for alone, together in zip(notes_of(one), notes_of(two), strict=True):
        assert (alone.step, alone.block, alone.objectives) == (together.step, together.block, together.objectives)
        assert together.norms == pytest.approx(alone.norms, rel=EXACT)
        assert together.weights == pytest.approx(alone.weights, abs=EXACT)


def pull(outputs, batch):
    """An auxiliary loss for a test: large logits cost; absent where a batch has no picture."""
    return outputs["logits"].float().square().mean() if "pixel_values" in batch else None


OWN = [{"name": "answers", "rows": "all"}, {"name": "size", "function": f"{__name__}:pull", "weight": 0.5}]


def test_an_auxiliary_loss_of_a_users(spec_with):
    spec = spec_with("own", OWN, "pcgrad", batch_size=4)
    assert isinstance(run(spec)[-1], FinalResult)
    assert {note.objectives for note in notes_of(spec)} == {("answers", "size")}


def test_two_losses_that_the_model_returns(spec_with, monkeypatch):
    from transformers import LlavaForConditionalGeneration as Llava

    forward = Llava.forward

    def with_losses(self, *args, **kwargs):
        outputs = forward(self, *args, **kwargs)
        outputs["text_loss"] = outputs.loss  # None where the model does not see the labels
        outputs["image_loss"] = outputs["logits"].float().square().mean()
        return outputs

    monkeypatch.setattr(Llava, "forward", with_losses)
    spec = spec_with("unified", [{"name": name, "output": f"{name}_loss"} for name in ("text", "image")], "mgda")
    result = run(spec)[-1]
    assert result.validation_loss < result.base_validation_loss
    assert {note.objectives for note in notes_of(spec)} == {("text", "image")}


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        (
            [BY_TASK[0], {"name": "none", "rows": "task=other"}],
            r"must have training rows, but `rows: task=other` selects none of",
        ),
        ([*BY_TASK, {"name": "all", "rows": "all"}], r"row 0 belongs to \['\w+', 'all'\]"),
        (
            [BY_TASK[0], {"name": "image", "rows": "pictures"}],
            r"must belong to exactly one objective; row \d+ belongs to",
        ),
        (
            [BY_TASK[0], {"name": "x", "function": "nowhere:f"}],
            r"`nowhere:f` cannot be imported",
        ),
    ],
)
def test_objectives_that_mean_nothing_are_refused(spec_with, objectives, message):
    with pytest.raises(ConfigError, match=message):
        run(spec_with("bad", objectives))


def test_a_loss_that_the_model_does_not_return(spec_with):
    with pytest.raises(TrainingError, match=r"`b` reads the model's output `nope`, but the model returned \["):
        run(spec_with("bad", [{"name": "a", "rows": "all"}, {"name": "b", "output": "nope"}]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objectives": BY_TASK[:1]}, "at least two"),
        ({"objectives": [BY_TASK[0], BY_TASK[0]]}, "different names"),
        ({"objectives": [BY_TASK[0], {"name": "x"}]}, "exactly one of `rows`, `output` and `function`"),
        ({"gradients": {"name": "mgda"}}, "needs at least two `objectives`"),
    ],
)
def test_specs_that_contradict_themselves(fields, message):
    with pytest.raises(ConfigError, match=message):
        TrainingSpec.parse(fields)


def test_a_spec_with_objectives_is_read_back_and_has_its_own_digest():
    several = TrainingSpec.parse({"objectives": BY_TASK, "gradients": {"name": "mgda"}})
    assert TrainingSpec.model_validate_json(several.to_json()) == several
    assert several.digest() != TrainingSpec().digest()


def test_losses_of_rows_add_up_to_the_ordinary_loss():
    make = torch.Generator().manual_seed(0)
    labels_BT = torch.randint(0, 7, (4, 5), generator=make)
    labels_BT[:, :2] = -100
    batch = Batch({}, labels_BT)
    seen = AnswerOutputs(torch.randn(1, 12, 7, generator=make).double(), None)
    objectives = Objectives([ObjectiveSpec(**fields) for fields in BY_TASK])
    found = objectives.losses(seen, batch, torch.tensor([0, 1, 1, 0]), 20, 1)
    whole = token_nats(seen.logits_KNV, batch.answers()[2]).sum() / 20
    torch.testing.assert_close(sum(found.values()), whole, rtol=EXACT, atol=0)
    assert list(found) == ["short", "long"]
    assert list(objectives.losses(seen, batch, torch.zeros(4, dtype=int), 20, 1)) == ["short"]


def test_the_log_forgets_what_a_killed_run_wrote_too_much(tmp_path):
    def note(case):
        return BlockGradient(
            block="all", objectives=("a", "b"), norms=(1.0, 2.0), cosine=0.5, weights=(1.0, 1.0), norm=2.6,
            alignment=(0.8, 0.9), case=case,
        )  # fmt: skip

    path = tmp_path / GRADIENTS
    first = GradientLog(path, writes=True)
    for step in range(3):
        first.add(step, [note("sum")])
    with path.open("a") as file:
        file.write('{"torn')
    second = GradientLog(path, writes=True)
    second.add(2, [note("conflict")])
    assert [json.loads(line)["case"] for line in path.read_text().splitlines()] == ["sum", "sum", "conflict"]
    assert second.summary() == {
        "gradients/all/cosine": 0.5,
        "gradients/all/norm_a": 1.0,
        "gradients/all/norm_b": 2.0,
        "gradients/all/conflict": 1.0,
    }
    assert second.summary() == {}


def test_trackers_see_the_gradients(spec_with, monkeypatch):
    logs = []
    log = SeparateTrainer.log

    def keep(self, values, *args, **kwargs):
        log(self, values, *args, **kwargs)
        logs.append(self.state.log_history[-1])

    monkeypatch.setattr(SeparateTrainer, "log", keep)
    run(spec_with("tracked", BY_TASK, "mgda"))
    assert any("gradients/all/cosine" in found and "loss" in found for found in logs)
