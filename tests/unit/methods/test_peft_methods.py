"""AdaLoRA, EVA, LoRA-GA and PiSSA: what PEFT computes, with its traps closed."""

import itertools

import pytest
import torch

from marslora.core.errors import ConfigError
from marslora.methods import LowRank, StepInfo, _plain_folder
from marslora.methods.adalora import AdaLora
from marslora.methods.eva import Eva
from marslora.methods.lora_ga import LoraGa
from marslora.methods.pissa import Pissa
from tests.unit.methods.worlds import logits, world


def steps(change, batch, number, first=1):
    optimizer = torch.optim.AdamW([one.parameter for one in change.trainables()], lr=0.02)
    seen = []
    for step in range(first, first + number):
        optimizer.zero_grad()
        loss, extra = change.model(**batch).loss, change.extra_loss()
        (loss if extra is None else loss + extra).backward()
        optimizer.step()
        change.after_step(StepInfo(step, lambda p: 0.02, lambda p: None))
        seen.append(change.ranks())
    return seen


def test_adaloras_ranks_fall_to_the_budget_and_differ():
    model, batch, plan, _ = world()
    method = AdaLora(interval=1)
    change = method.apply(model, plan)
    first, budget = method.init_rank(plan) * len(plan.ranks), sum(plan.ranks.values())
    seen = steps(change, batch, plan.num_steps)
    sums = [sum(ranks.values()) for ranks in seen]
    assert sums[0] == first > budget
    assert sums[-1] == budget
    assert all(a >= b for a, b in itertools.pairwise(sums))
    assert len(set(seen[-1].values())) > 1
    assert set(seen[-1]) == set(plan.ranks)
    for path, mask in change.masks().items():
        assert not model.get_submodule(path).lora_E["default"][~mask].any()
    change.remove()


def test_adaloras_orthogonality_is_that_of_the_paper():
    model, _, plan, _ = world(language=3)
    change = AdaLora(orth_reg_weight=0.5).apply(model, plan)
    with torch.no_grad():
        for one in change.trainables():
            if one.role in ("A", "B"):
                torch.nn.init.orthogonal_(one.parameter)
    assert change.extra_loss().item() < 1e-5
    with torch.no_grad():
        for one in change.trainables():
            one.parameter.mul_(2.0)
    rank = AdaLora().init_rank(plan)
    assert change.extra_loss().item() == pytest.approx(0.5 * 3 * rank**0.5, rel=1e-5)
    change.remove()


def test_adalora_begins_the_same_for_a_seed():
    model, _, plan, _ = world(language=3)
    drawn = []
    for seed in (1, 1, 2):
        change = AdaLora().apply(model, plan.model_copy(update={"seed": seed}))
        drawn.append(change.trainables()[0].parameter.detach().clone())
        change.remove()
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def principal(x, rank):
    return torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:rank]


def test_evas_directions_of_a_tower_come_from_all_its_inputs_and_of_the_language_model_from_answers():
    model, batch, plan, _ = world(vision=2, language=2)
    seen = {}
    found = [path for path in plan.ranks if path.endswith(("layers.0.mlp.fc1", "layers.0.mlp.gate_proj"))]

    def watch(path):
        def hook(_, inputs, __):
            seen[path] = inputs[0].detach()

        return model.get_submodule(path).register_forward_hook(hook)

    handles = [watch(path) for path in found]
    model(**batch)
    for handle in handles:
        handle.remove()
    asked = batch["attention_mask"].bool()
    batch = {**batch, "labels": batch["input_ids"].where(asked, -100)}
    change = Eva(rho=1.0).apply(model, plan, [batch])
    assert len(found) == 2
    for path in found:
        x = seen[path]
        x = x[asked] if x.shape[:2] == asked.shape else x.flatten(0, 1)
        A = change.layers[path].lora_A[0].detach()
        assert float(torch.linalg.svdvals(A @ principal(x.float(), 2).T).min()) > 0.9  # PEFT's decomposition is random
    change.remove()


def test_eva_spreads_ranks_and_keeps_their_sum():
    model, batch, plan, _ = world(vision=2, language=2)
    change = Eva(use_label_mask=False).apply(model, plan, [batch, batch])
    ranks = change.plan.ranks
    assert sum(ranks.values()) == sum(plan.ranks.values())
    assert ranks != plan.ranks
    assert max(ranks.values()) <= 4
    assert all(rank == len(change.layers[path].lora_A[0]) for path, rank in ranks.items())
    change.remove()


def test_eva_says_what_is_missing():
    model, batch, plan, _ = world(vision=2, language=2)
    with torch.no_grad():
        model(**batch)
    hooks = [list(module._forward_hooks) for module in model.modules()]
    with pytest.raises(ConfigError, match="no stable directions"):
        Eva(num_batches=1).apply(model, plan, [{**batch, "labels": batch["labels"] * 0 - 100}])
    without = {key: value for key, value in batch.items() if key != "pixel_values"}
    without["input_ids"] = batch["input_ids"].where(batch["input_ids"] != model.config.image_token_id, 5)
    with pytest.raises(ConfigError, match="does not use some of them"):
        Eva(use_label_mask=False).apply(model, plan, [without])
    with pytest.raises(ConfigError, match="directions, but"):
        Eva(rho=40).apply(model, plan, [batch])
    assert hooks == [list(module._forward_hooks) for module in model.modules()]


def test_pissas_start_is_the_largest_part_of_the_weight():
    model, _, plan, _ = world(language=4)
    path = "model.language_model.layers.0.mlp.gate_proj"
    change = Pissa(niter=0).apply(model, plan)
    layer = change.layers[path]
    U, S, Vh = torch.linalg.svd(layer.base.weight, full_matrices=False)
    product = layer.scale * layer.lora_B[0] @ layer.lora_A[0]
    torch.testing.assert_close(product, (U[:, :4] * S[:4]) @ Vh[:4], atol=1e-5, rtol=1e-4)
    assert change.low_ranks()[path].A_RI.shape[0] == 8
    assert torch.linalg.matrix_norm(layer.low_rank().B_OR @ layer.low_rank().A_RI) < 1e-5
    change.remove()


def test_lora_ga_begins_along_the_gradient_and_leaves_the_model_alone():
    model, batch, plan, _ = world(vision=2, language=2)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    path = "model.language_model.layers.0.mlp.gate_proj"
    weight = model.get_submodule(path).weight
    weight.requires_grad_(True)
    gradient = torch.autograd.grad(model(**batch).loss, weight)[0]
    weight.requires_grad_(False)
    base = logits(type("Plain", (), {"model": model})(), batch)
    change = LoraGa(num_batches=1).apply(model, plan, [batch])
    A = change.layers[path].lora_A[0].detach()
    overlap = torch.linalg.svdvals(A @ torch.linalg.svd(gradient).Vh[:2].T)
    torch.testing.assert_close(overlap, torch.ones(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(logits(change, batch), base, atol=1e-5, rtol=1e-5)
    change.remove()
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert not any(one.requires_grad or one.grad is not None for one in model.parameters())
    assert not any("_peft_loraga_grad" in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    ("method_class", "options"),
    [
        (AdaLora, {"init_factor": 1.0}),
        (AdaLora, {"warm_share": 0.6, "final_share": 0.4}),
        (AdaLora, {"beta1": 1.0}),
        (Eva, {"rho": 0.5}),
        (Eva, {"tau": 2.0}),
        (LoraGa, {"num_batches": 0}),
        (LoraGa, {"direction": "up"}),
        (Pissa, {"niter": -1}),
    ],
)
def test_wrong_options_are_refused(method_class, options):
    with pytest.raises(ConfigError):
        method_class(**options)


def test_folders_of_tasks_have_names_of_their_own():
    assert [_plain_folder.folder_name(name, i) for i, name in enumerate(["ocr", "a b", "a/b", "..", "-x"])] == [
        "ocr", "1-a_b", "2-a_b", "3-", "-x",
    ]  # fmt: skip


def test_what_has_rank_0_or_another_scale_is_written_so(tmp_path):
    model, _, plan, _ = world(language=2)
    first, second = list(plan.ranks)[:2]
    A, B = torch.ones(1, 64), torch.ones(64, 1)
    _plain_folder.write(tmp_path, {first: LowRank(A, B, 1.0), second: LowRank(A[:0], B[:, :0], 2.0)}, plan, {}, model)
    from safetensors.torch import load_file

    found = load_file(tmp_path / "adapter_model.safetensors")
    assert list(found) == [f"base_model.model.{first}.lora_A.weight", f"base_model.model.{first}.lora_B.weight"]
    assert float(found[f"base_model.model.{first}.lora_B.weight"].max()) == 0.5
