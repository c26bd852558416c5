import copy

import pytest
import torch
from peft import PeftModel
from torch import nn

from marslora.adapters.lora import Lora
from marslora.core.errors import ConfigError, StudyError
from marslora.methods import AdapterPlan, _balance_losses, _router, attach
from marslora.methods._context import BatchContext, RoutingRecord, align_labels
from marslora.methods._mixture import MixtureLinear
from marslora.methods._mixture_method import MixtureMethod
from marslora.methods.asymlora import AsymLora
from marslora.methods.hydralora import HydraLora
from marslora.methods.llava_mole import LlavaMole
from marslora.methods.modality_lora import ModalityLora
from marslora.methods.mola import Mola
from tests.unit.methods.worlds import logits, randomise, with_tasks, world

PLAN = AdapterPlan(ranks={"fc": 3}, parts={"fc": "language"}, scale=1.5, seed=4)


def one(heads=1, shared_a=True, inputs=6, outputs=5):
    torch.manual_seed(0)
    base = nn.Linear(inputs, outputs).requires_grad_(False)
    layer = MixtureLinear(base, "fc", BatchContext(nn.Module()), PLAN, heads=heads, shared_a=shared_a)
    with torch.no_grad():
        for B in layer.lora_B:
            B.normal_()
    return layer


def given(weights):
    source = nn.Module()
    source.weights = lambda x: weights
    return source


def test_one_head_is_lora_forward_and_gradients():
    from marslora.adapters import MemberSettings, TrainingPosition

    layer, x = one(), torch.randn(2, 7, 6)
    lora = Lora(layer.base, "fc", (MemberSettings(3, 1.5, seed=4),), TrainingPosition())
    assert torch.equal(lora.A_KRI[0], layer.lora_A[0])
    lora.B_KOR.data[0] = layer.lora_B[0].data
    weight = torch.randn(2, 7, 5)
    for adapter in (layer, lora):
        (adapter(x) * weight).sum().backward()
    torch.testing.assert_close(layer(x), lora(x))
    torch.testing.assert_close(layer.lora_A[0].grad, lora.A_KRI.grad[0])
    torch.testing.assert_close(layer.lora_B[0].grad, lora.B_KOR.grad[0])


@pytest.mark.parametrize("shared_a", [True, False])
def test_the_stacked_product_is_the_loop(shared_a):
    layer, x = one(heads=3, shared_a=shared_a), torch.randn(2, 7, 6)
    weights = torch.randn(2, 7, 3).softmax(-1)
    layer.source = given(weights)
    expected = layer.base(x)
    for i in range(3):
        A = layer.lora_A[i if not shared_a else 0]
        expected = expected + 1.5 * weights[..., i : i + 1] * (x @ A.T @ layer.lora_B[i].T)
    torch.testing.assert_close(layer(x), expected)


def test_equal_heads_are_one_head():
    layer, x = one(heads=4), torch.randn(2, 7, 6)
    for B in layer.lora_B:
        B.data.copy_(layer.lora_B[0].data)
    layer.source = given(torch.full((2, 7, 4), 0.25))
    alone = one()
    alone.lora_B[0].data.copy_(layer.lora_B[0].data)
    torch.testing.assert_close(layer(x), alone(x))


@pytest.mark.parametrize(
    ("method", "learns"),
    [
        (HydraLora(), True),
        (AsymLora(form="mixture", balance="none"), True),
        (Mola(), True),
        (LlavaMole(balance="none"), True),
        (LlavaMole(balance="none", gate="probability"), True),
        (LlavaMole(balance="none", gate="none"), False),
    ],
)
def test_the_router_gets_a_task_gradient_but_not_as_released_without_a_gate(method, learns):
    model, batch, plan, _ = world(language=4)
    change = method.apply(model, plan)
    randomise(change)
    change.model(**batch).loss.backward()
    norms = [t.parameter.grad for t in change.trainables() if t.role == "router"]
    assert norms
    assert all((g is not None and bool(g.any())) == learns for g in norms)
    change.remove()


def test_a_load_balance_trains_the_routers_of_the_release():
    model, batch, plan, _ = world(language=4)
    change = LlavaMole(gate="none", balance_weight=0.5).apply(model, plan)
    change.model(**batch)
    loss = change.extra_loss()
    loss.backward()
    assert 0.5 / 3 * 0.9 < loss.item() <= 0.5
    assert all(bool(t.parameter.grad.any()) for t in change.trainables() if t.role == "router")
    change.remove()


def test_the_likeliest_heads_and_their_gates():
    p = torch.tensor([[0.5, 0.3, 0.2]], requires_grad=True)
    choose = lambda **more: _router.weigh_heads(p, **{"top": 1, "renormalize": False, "gate": "probability", **more})  # noqa: E731
    torch.testing.assert_close(choose(), torch.tensor([[0.5, 0.0, 0.0]]))
    torch.testing.assert_close(choose(top=2, renormalize=True), torch.tensor([[0.625, 0.375, 0.0]]))
    torch.testing.assert_close(choose(top=None), p)
    straight = choose(gate="straight_through")
    torch.testing.assert_close(straight, torch.tensor([[1.0, 0.0, 0.0]]))
    assert torch.equal(torch.autograd.grad(straight[0, 0], p)[0], torch.tensor([[1.0, 0.0, 0.0]]))
    assert not choose(gate="none").requires_grad


def test_balances_of_even_and_one_sided_routing():
    context = BatchContext(nn.Module())
    even = RoutingRecord("language", torch.full((2, 6, 3), 1 / 3), torch.arange(6).remainder(3).expand(2, 6))
    sure = RoutingRecord("language", torch.tensor([1.0, 0.0, 0.0]).expand(2, 6, 3), torch.zeros(2, 6, dtype=torch.long))
    for routed, mole, switch in (([even], 1 / 3, 1.0), ([sure], 1.0, 3.0), ([even, sure], 1 / 2, 2.0)):
        assert float(_balance_losses.mole_loss(routed, context)) == pytest.approx(mole)
        assert float(_balance_losses.switch_loss(routed, context)) == pytest.approx(switch)


def test_padding_does_not_count_in_a_balance():
    context = BatchContext(nn.Module())
    context.read({"attention_mask": torch.tensor([[1, 1, 0]])})
    p = torch.tensor([[[0.9, 0.1], [0.9, 0.1], [0.0, 1.0]]])
    routed = [RoutingRecord("language", p, p.argmax(-1))]
    assert float(_balance_losses.mole_loss(routed, context)) == pytest.approx(0.9)
    assert float(_balance_losses.switch_loss(routed, context)) == pytest.approx(1.8)


def test_a_task_merged_is_the_forward_of_that_task(tmp_path):
    model, batch, plan, _ = world()
    change = AsymLora().apply(model, plan)
    randomise(change)
    expected = [logits(change, with_tasks(batch, place, place)) for place in (0, 1)]
    mixed = logits(change, with_tasks(batch, 1, 0))
    torch.testing.assert_close(mixed, torch.stack([expected[1][0], expected[0][1]]))
    change.save(tmp_path)
    change.remove()
    for task, wanted in zip("ab", expected, strict=True):
        plain = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "tasks" / task)
        torch.testing.assert_close(plain.eval()(**batch).logits, wanted, atol=1e-6, rtol=1e-6)
        merged = plain.merge_and_unload()
        torch.testing.assert_close(merged(**batch).logits, wanted, atol=1e-5, rtol=1e-5)


def test_a_batch_that_names_no_task_is_refused():
    model, batch, plan, _ = world()
    change = AsymLora().apply(model, plan)
    with pytest.raises(ConfigError, match="batch does not name any"):
        change.model(**batch)
    change.use_task("c")
    with pytest.raises(ConfigError, match="has no task"):
        change.model(**batch)
    change.use_task("b")
    assert torch.equal(logits(change, batch), logits(change, with_tasks(batch, 1, 1)))
    with change.disabled():
        change.use_task(None)
        disabled = logits(change, batch)
    change.remove()
    with torch.no_grad():
        torch.testing.assert_close(disabled, model(**batch).logits)


def test_without_tasks_there_are_no_heads():
    model, _, plan, _ = world()
    with pytest.raises(ConfigError, match="no training row names its task in column `kind`"):
        AsymLora(column="kind").apply(model, plan.model_copy(update={"tasks": ()}))


def test_labels_of_rows_and_pictures_are_spread_or_refused():
    labels = torch.tensor([3, 3, 5, 5])
    assert align_labels(labels, torch.zeros(4, 7, 2), "vision").flatten().tolist() == [3, 3, 5, 5]
    assert align_labels(labels, torch.zeros(2, 2), "projector").tolist() == [3, 5]
    for found in (1, 8, 3):
        with pytest.raises(ConfigError, match="unknown in vision"):
            align_labels(labels, torch.zeros(found, 7, 2), "vision")


def test_each_modality_has_its_own_head():
    model, batch, plan, _ = world(language=4)
    change = ModalityLora().apply(model, plan)
    assert change.plan.modalities == ("text", "image")
    without = logits(change, batch)
    at = "model.language_model.layers.1.self_attn.v_proj"
    change.mixture(at).lora_B[1].data.normal_()
    only_text = {key: value for key, value in batch.items() if key != "pixel_values"}
    only_text["input_ids"] = batch["input_ids"].where(batch["input_ids"] != model.config.image_token_id, 5)
    assert not torch.allclose(logits(change, batch), without)
    before = logits(change, only_text)
    change.mixture(at).lora_B[1].data.normal_()
    assert torch.equal(before, logits(change, only_text))
    change.remove()


def test_experts_grow_in_number_with_depth():
    _, _, plan, _ = world(language=4)
    method = Mola(heads=(2, 4))
    heads = method.heads_of(plan)
    assert {heads[p] for p in heads if ".layers.0." in p} == {2}
    assert {heads[p] for p in heads if ".layers.1." in p} == {4}


def test_a_model_that_does_not_name_its_picture_tokens_is_refused():
    model, _, plan, _ = world(language=4)
    unnamed = copy.deepcopy(model)
    unnamed.config = type(model.config.text_config)()
    with pytest.raises(ConfigError, match="does not name the tokens"):
        ModalityLora().apply(unnamed, plan)


@pytest.mark.parametrize(
    "options",
    [{"top": 0}, {"gate": "loud"}, {"router": "layer"}, {"heads_in": "("}, {"headss": 3}, {"balance": "even"}],
)
def test_wrong_options_are_named(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        HydraLora(**options)


def test_a_form_that_is_none():
    with pytest.raises(ConfigError, match=r"`form` of AsymLora must be one of \['task', 'mixture'\], found 'both'"):
        AsymLora(form="both")


def test_the_routers_of_the_release():
    model, _, plan, _ = world(language=4)
    change = AsymLora(form="mixture").apply(model, plan)
    routers = [t for t in change.trainables() if t.role == "router"]
    assert [tuple(t.parameter.shape) for t in routers] == [(3, 64), (3,)] * 2
    assert all(len(change.mixture(path).lora_B) == (3 if ".mlp." in path else 1) for path in plan.ranks)
    change.remove()


def test_a_block_whose_input_is_of_another_width_is_refused():
    settings = MixtureMethod.Config(router="block")
    context = BatchContext(nn.Module())
    router = _router.Router(6, 2, bias=False, seed=0, path="x", device=torch.device("cpu"))
    source = _router.BlockSource(router, context, "language", settings)
    with pytest.raises(ConfigError, match="no input of width 6"):
        source.hook(nn.Module(), (torch.randn(1, 2, 5),), {})
    source.hook(nn.Module(), (), {"hidden_states": torch.randn(1, 2, 6)})
    assert source.weights(torch.randn(1, 2, 9)).shape == (1, 2, 2)
    with pytest.raises(ConfigError, match="router of its block read"):
        source.weights(torch.randn(1, 3, 9))


def test_an_adapter_of_another_model_is_refused(tmp_path):
    model, _, plan, _ = world(language=4)
    change = HydraLora().apply(model, plan)
    change.save(tmp_path)
    change.remove()
    with pytest.raises(StudyError, match="belongs to another model"):
        attach(nn.Linear(2, 2), tmp_path)
    with pytest.raises(StudyError, match="does not contain a readable adapter"):
        attach(model, tmp_path / "nothing")


def test_recomputed_activations_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        model, batch, plan, _ = world(language=4)
        change = AsymLora(form="mixture").apply(model, plan)
        randomise(change)
        if recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()
        loss = change.model(**batch).loss + change.extra_loss()
        loss.backward()
        gradients.append([t.parameter.grad for t in change.trainables()])
        change.remove()
    for one_, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one_, other)
