"""Gradients kept apart: equal to what autograd says, whole over micro-batches, with layers that recompute."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import LlamaConfig, LlamaForCausalLM

from marslora.core.errors import ConfigError
from marslora.gradients import SeparateGradients, refuse_reentrant


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=17, hidden_size=8, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).train()


@pytest.fixture
def batch():
    make = torch.Generator().manual_seed(1)
    return torch.randint(0, 17, (8, 6), generator=make), torch.randn(8, 6, 8, generator=make)


def losses(model, tokens, pictures):
    """Mean losses of a text and of an image objective."""
    out = model.model(inputs_embeds=model.model.embed_tokens(tokens)).last_hidden_state
    return {
        "text": cross_entropy(model.lm_head(out[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()),
        "image": mse_loss(out, pictures),
    }


def grads(model):
    return [parameter.grad for parameter in model.parameters()]


def test_the_sum_is_the_gradient_of_the_summed_loss_bit_for_bit_where_autograd_adds_once(model, batch):
    separate = SeparateGradients(model.named_parameters(), {"name": "sum"})
    separate.backward(losses(model, *batch))
    notes = separate.combine()
    mine = [grad.clone() for grad in grads(model)]
    found = losses(model, *batch)
    one = torch.autograd.grad(found["text"], list(model.parameters()), retain_graph=True)
    other = torch.autograd.grad(found["image"], list(model.parameters()), allow_unused=True)
    for grad, text, image in zip(mine, one, other, strict=True):
        assert torch.equal(grad, text if image is None else text + image)
    model.zero_grad()
    sum(losses(model, *batch).values()).backward()
    for grad, joint in zip(mine, grads(model), strict=True):
        torch.testing.assert_close(grad, joint, rtol=1e-4, atol=1e-7)
    assert notes[0].objectives == ("text", "image")


@pytest.mark.parametrize("kind", ["sum", "pareto_lora", "mgda", "gradnorm"])
def test_micro_batches_are_combined_once(model, batch, kind):
    options = {"modulate": ""} if kind == "pareto_lora" else {}
    whole, pieces = (SeparateGradients(model.named_parameters(), {"name": kind, "options": options}) for _ in "ab")
    whole.backward(losses(model, *batch))
    whole.combine()
    expected = [grad.clone() for grad in grads(model)]
    for rows in (slice(0, 4), slice(4, 8)):
        part = losses(model, *(tensor[rows] for tensor in batch))
        pieces.backward({name: loss / 2 for name, loss in part.items()})
    pieces.combine()
    for mine, theirs in zip(grads(model), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


def test_nothing_of_a_step_is_left_for_the_next(model, batch):
    separate = SeparateGradients(model.named_parameters(), {"name": "mgda"})
    results = []
    for _ in range(2):
        separate.backward(losses(model, *batch))
        separate.combine()
        results.append([grad.clone() for grad in grads(model)])
        model.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_an_objective_absent_from_a_micro_batch_or_a_step(model, batch):
    separate = SeparateGradients(model.named_parameters(), {"name": "mgda"}, ("text", "image"))
    separate.backward({"image": losses(model, *batch)["image"]})
    notes = separate.combine()
    assert {note.case for note in notes} == {"alone"}
    separate.backward({"image": losses(model, *batch)["image"]})
    separate.backward({"text": losses(model, *batch)["text"], "image": torch.zeros(())})
    assert separate.combine()[0].objectives == ("text", "image")


def test_backward_leaves_grad_alone_until_combine(model, batch):
    model.zero_grad()
    separate = SeparateGradients(model.named_parameters(), {"name": "sum"})
    separate.backward(losses(model, *batch))
    assert grads(model) == [None] * len(grads(model))


def test_layers_that_recompute_give_the_same(model, batch):
    results = []
    for wanted in (False, True):
        own = copy.deepcopy(model)
        if wanted:
            own.gradient_checkpointing_enable({"use_reentrant": False})
        refuse_reentrant(own)
        separate = SeparateGradients(own.named_parameters(), {"name": "imtl_g"})
        separate.backward(losses(own, *batch))
        separate.combine()
        results.append(grads(own))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-8)


def test_reentrant_checkpointing_is_refused(model):
    own = copy.deepcopy(model)
    own.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ConfigError, match=r"uses reentrant gradient checkpointing.*'use_reentrant': False"):
        refuse_reentrant(own)


def test_a_loss_scale_is_not_in_the_notes(model, batch):
    plain, scaled = (SeparateGradients(model.named_parameters(), {"name": "mgda"}) for _ in "ab")
    plain.backward(losses(model, *batch))
    expected = plain.combine()[0]
    scaled.backward(losses(model, *batch), lambda loss, retain_graph: (64 * loss).backward(retain_graph=retain_graph))
    note = scaled.combine(scale=64.0)[0]
    assert note.norms == pytest.approx(expected.norms, rel=1e-5)
    assert note.norm == pytest.approx(expected.norm, rel=1e-5)


def test_what_cannot_be_built_is_refused():
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigError, match="must hold one that needs a gradient"):
        SeparateGradients(frozen.named_parameters(), {"name": "sum"})
    with pytest.raises(ConfigError, match=r"MGDA has no option \['tau'\]\. Its options are \['blocks', 'modulate'\]"):
        SeparateGradients(nn.Linear(2, 2).named_parameters(), {"name": "mgda", "options": {"tau": 1}})
    with pytest.raises(ConfigError, match=r"is not a plugin in marslora.gradients"):
        SeparateGradients(nn.Linear(2, 2).named_parameters(), {"name": "nonsense"})


TWO_PROCESSES = """
import sys, torch
from torch import distributed, nn
from marslora.gradients import SeparateGradients
distributed.init_process_group("gloo")
rank = distributed.get_rank()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
x = torch.randn(8, 3)[4 * rank : 4 * rank + 4]
wrapped = nn.parallel.DistributedDataParallel(model)
separate = SeparateGradients(model.named_parameters(), {"name": sys.argv[1]}, ("a", "b"))
with wrapped.no_sync():
    out = wrapped(x)
    losses = {"a": out[:, 0].square().mean(), "b": (out[:, 1] - 3).square().mean()}
    separate.backward({"b": losses["b"]} if rank and sys.argv[2] == "absent" else losses)
separate.combine()
torch.save([p.grad for p in model.parameters()], f"{sys.argv[3]}/rank{rank}.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "present"), [("mgda", "absent"), ("gradnorm", "all")])
def test_two_processes_combine_the_mean(tmp_path, kind, present):
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, str(script), kind, present, str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(8, 3)
    separate = SeparateGradients(model.named_parameters(), {"name": kind})
    out = model(x)
    share = out[:4, 0].square().mean() / 2 if present == "absent" else out[:, 0].square().mean()
    separate.backward({"a": share, "b": (out[:, 1] - 3).square().mean()})
    separate.combine()
    for one, two, expected in zip(first, second, grads(model), strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-7)
