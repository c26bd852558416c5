"""Logits at the answers alone give the loss, the gradients and the guesses that all logits give."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy

from marslora.finetune.loss import AnswerLoss, average_over_step
from tests.helpers import tiny_models

CPU = torch.device("cpu")


def small(name):
    """A tiny model, all of it trained, and a batch whose rows have answers of unequal length."""
    model, batch = tiny_models.build(name)
    labels_BT = batch["labels"].clone()
    labels_BT[0, :-2] = -100
    return model.eval().requires_grad_(True), {**batch, "labels": labels_BT}


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3", "florence2"])
def test_loss_and_gradients_are_those_of_the_plain_model(name):
    model, batch = small(name)
    answers = AnswerLoss(model)
    ours = average_over_step(answers.nats(model, answers.batch(batch, CPU)), None)
    found = gradients(model, ours)
    outputs = model(**batch, use_cache=False)
    plain = outputs.loss
    torch.testing.assert_close(ours, plain)
    wanted = gradients(model, plain)
    assert found.keys() == wanted.keys() and found
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["llava", "florence2"])
def test_guesses_and_tokens_are_counted_where_the_answers_are(name):
    model, batch = small(name)
    answers = AnswerLoss(model)
    shift = 0 if name == "florence2" else 1
    with torch.no_grad():
        nats, correct, tokens = answers.sums(model, answers.batch(batch, CPU)).tolist()
        logits_BTV = model(**batch, use_cache=False).logits
    labels_BT = batch["labels"][:, shift:]
    logits_BTV = logits_BTV[:, : labels_BT.shape[1]]
    is_answer_BT = labels_BT != -100
    assert tokens == int(is_answer_BT.sum())
    assert correct == int((logits_BTV.argmax(-1) == labels_BT)[is_answer_BT].sum())
    assert nats == pytest.approx(float(cross_entropy(logits_BTV[is_answer_BT], labels_BT[is_answer_BT])) * tokens)


@pytest.mark.parametrize("head", ["plain", "LoRA on the head", "head trained whole"])
def test_the_head_sees_the_answers_alone_also_inside_peft(head):
    model, batch = small("llava")
    targets = {"target_modules": ["q_proj", "lm_head"] if head == "LoRA on the head" else ["q_proj"]}
    whole = {"modules_to_save": ["lm_head"]} if head == "head trained whole" else {}
    adapt_model = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **targets, **whole))
    answers = AnswerLoss(model)
    seen = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _, __, out: seen.append(out.shape[:2]))
    ours = average_over_step(answers.nats(adapt_model, answers.batch(batch, CPU)), None)
    handle.remove()
    found = gradients(adapt_model, ours)
    assert seen == [(1, int((batch["labels"][:, 1:] != -100).sum()))]
    plain = adapt_model(**batch).loss
    torch.testing.assert_close(ours, plain)
    wanted = gradients(adapt_model, plain)
    assert found.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key], rtol=1e-4, atol=1e-6)


def test_the_loss_of_micro_batches_adds_up_to_that_of_the_step():
    nats_N = torch.rand(9, generator=torch.Generator().manual_seed(0))
    halves = [average_over_step(nats_N[part], 9) for part in (slice(2), slice(2, 9))]
    torch.testing.assert_close(sum(halves), average_over_step(nats_N, None))


def test_a_batch_of_blank_rows_has_no_loss_and_no_gradient():
    model, batch = small("llava")
    blank = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    answers = AnswerLoss(model)
    for num_items in (10, None):
        loss = average_over_step(answers.nats(model, answers.batch(blank, CPU)), num_items)
        assert loss == 0
        assert all(not grad.any() for grad in gradients(model, loss).values())


def test_all_logits_are_made_where_others_than_the_answers_are_looked_at():
    model, batch = small("llava")
    answers = AnswerLoss(model)
    with torch.no_grad():
        moved = answers.batch(batch, CPU)
        few, seen = answers.at_answers(model, moved), answers.everywhere(model, moved, with_labels=True)
    assert seen.outputs.logits.shape[:2] == batch["labels"].shape
    torch.testing.assert_close(seen.logits_KNV, few.logits_KNV)
    assert seen.outputs.loss is not None and few.outputs.loss is None
