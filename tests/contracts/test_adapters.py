"""What every adapter promises, run over the whole folder."""

import copy
import math

import pytest
import torch

from marslora import adapters, methods
from marslora.adapters import AbstractAdapter
from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.core.spec import MemberSpec, PluginSpec, TrainingSpec
from marslora.engine.pack import Base, Member, Pack
from marslora.methods import AbstractMethod, StepInfo, attach
from marslora.models.discovery import discover
from tests.helpers.tiny_models import TINY
from tests.unit.methods.worlds import logits, with_tasks, world

METHODS = plugins.names(methods)
NAMES = [
    *((adapters, AbstractAdapter, name) for name in plugins.names(adapters)),
    *((methods, AbstractMethod, name) for name in METHODS),
]
VARIANTS = [(name, {}) for name in METHODS] + [
    ("asymlora", {"form": "mixture"}),
    ("asymlora", {"heads_in": r"\.mlp\."}),
    ("mola", {"balance": "switch"}),
    ("geolora", {"keep_budget": False, "cycles": 2}),
    ("pissa", {"niter": 0}),
]
CALIBRATED = {"eva": {"use_label_mask": False}}
"""Options for tiny batches, whose answers have too few tokens to see directions in."""


def method_of(name, options):
    return plugins.load(methods, name, AbstractMethod)(**{**CALIBRATED.get(name, {}), **options})


def changed(name, options=None, arch="llava", **more):
    model, batch, plan, sizes = world(arch, **more)
    method = method_of(name, options or {})
    if method.column:
        batch = with_tasks(batch, 0, 1)
    return model, batch, sizes, method, method.apply(model, plan, [batch, batch])


def train(change, batch, steps, first=1):
    """The steps of the final run in short; the loss of each."""
    optimizer = torch.optim.AdamW([one.parameter for one in change.trainables()], lr=0.02)
    losses = []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss, extra = change.model(**batch).loss, change.extra_loss()
        total = loss if extra is None else loss + extra
        total.backward()
        moment = StepInfo(step, lambda parameter: 0.02, lambda parameter: optimizer.state.pop(parameter, None))
        change.before_step(moment)
        optimizer.step()
        change.after_step(moment)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("package", "base", "name"), NAMES)
def test_it_says_what_becomes_of_it(package, base, name):
    kind = plugins.load(package, name, base)
    assert kind.merges in ("yes", "by task", "no")
    assert "server" in kind.serves or "Python" in kind.serves
    assert len(plugins.summary(package, name)) < 120


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_it_starts_as_the_model_learns_and_reloads_to_the_same(name, options, tmp_path):
    model, batch, sizes, method, change = changed(name, options)
    plain = {key: value for key, value in batch.items() if not key.startswith("task_")}
    with torch.no_grad():
        untouched = model(**plain).logits if not method.column else None
    with change.disabled():
        base = logits(change, batch)
    fresh = logits(change, batch)
    torch.testing.assert_close(fresh, base, atol=2e-5, rtol=1e-4)
    assert untouched is None or torch.allclose(untouched, fresh)
    assert change.num_trainable() == method.count(sizes, change.plan)
    losses = train(change, batch, 6)
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    trained = logits(change, batch)
    change.save(tmp_path)
    check_merging(change, tmp_path, "no" if options.get("form") == "mixture" else method.merges)
    change.remove()
    with torch.no_grad():
        torch.testing.assert_close(model(**plain).logits, base)
    again = attach(copy.deepcopy(model), tmp_path)
    call = again if hasattr(again, "peft_config") else again.model
    with torch.no_grad():
        torch.testing.assert_close(call(**batch).logits, trained, atol=1e-5, rtol=1e-5)


def check_merging(change, folder, merges):
    """What merges is saved as plain LoRA, and what does not says so."""
    folders = {"yes": [folder], "by task": [folder / "tasks" / task for task in "ab"], "no": []}[merges]
    assert sorted(path.parent for path in folder.rglob("adapter_config.json")) == folders
    if merges == "no":
        with pytest.raises(ConfigError, match=r"merged|must be run with its adapter"):
            change.low_ranks()


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_goes_on(name):
    _, batch, _, _, whole = changed(name)
    train(whole, batch, 3)
    state = {key: tensor.clone() for key, tensor in whole.state().items()}
    whole_logits = logits(whole, batch)
    whole.remove()
    _, batch, _, _, stopped = changed(name)
    stopped.load_state(state)
    torch.testing.assert_close(logits(stopped, batch), whole_logits)
    assert stopped.state().keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in stopped.state().items())
    stopped.remove()


@pytest.mark.parametrize("name", ["asymlora", "adalora", "geolora", "moka", "pissa"])
def test_parts_trained_whole_go_with_it(name, tmp_path):
    model, batch, plan, _ = world(vision=2, language=2)
    path = "model.multi_modal_projector.linear_1"
    plan = plan.model_copy(update={"full_modules": (path,), "parts": {**plan.parts, path: "projector"}})
    method = method_of(name, {})
    batch = with_tasks(batch, 0, 1) if method.column else batch
    before = model.get_submodule(path).weight.clone()
    change = method.apply(model, plan, [batch])
    assert {one.name for one in change.trainables() if one.role == "full"} == {f"{path}.weight", f"{path}.bias"}
    train(change, batch, 1)
    trained = logits(change, batch)
    change.save(tmp_path)
    change.remove()
    assert torch.equal(model.get_submodule(path).weight, before)
    again = attach(model, tmp_path)
    call = again if hasattr(again, "peft_config") else again.model
    with torch.no_grad():
        torch.testing.assert_close(call(**batch).logits, trained, atol=1e-5, rtol=1e-5)


NEEDS_KINDS = ("modality_lora", "moka")
REFUSED = {(arch, name) for arch in ("mllama", "florence2") for name in NEEDS_KINDS}
"""Models in whose language part some linears read pictures, or the tokens of another stream."""


@pytest.mark.slow
@pytest.mark.parametrize("arch", TINY)
def test_it_trains_on_any_architecture(arch):
    model, batch, plan, _ = world(arch, probed=True)
    for name in METHODS:
        method = method_of(name, {"rho": 1.0} if name == "eva" else {})
        rows = {**batch, "task_of_row": torch.tensor([1, 1])} if method.column else batch
        change = method.apply(model, plan, [batch])
        try:
            if (arch, name) in REFUSED:
                with pytest.raises(ConfigError, match="modality of tokens is unknown"):
                    change.model(**rows)
            else:
                assert math.isfinite(train(change, rows, 1)[0])
        finally:
            change.remove()


@pytest.mark.parametrize("name", METHODS)
def test_packs_refuse_it(name):
    model, _, _, _ = world(language=2)
    info = discover(model)
    base = Base(model, info, TrainingSpec(adapter=PluginSpec(name=name)), torch.device("cpu"), torch.float32)
    member = MemberSpec(id="m", allocation={"language": 2}, data_examples=2, until_examples=2)
    with pytest.raises(ConfigError, match=f"`{name}` is not a plugin in marslora.adapters"):
        Pack(base, [Member(member)])
