import torch

from marslora.finetune._loss import mean_answer_loss, token_sums


def test_only_answers_count_and_each_is_predicted_from_the_token_before():
    logits_BTV = torch.zeros(1, 4, 3)
    logits_BTV[0, 1, 2] = 5.0
    labels_BT = torch.tensor([[-100, -100, 2, 1]])
    sums = token_sums(logits_BTV, labels_BT)
    sure = -torch.log_softmax(torch.tensor([0.0, 0.0, 5.0]), 0)[2]
    torch.testing.assert_close(sums.nats.float(), sure + torch.log(torch.tensor(3.0)))
    assert sums.tokens == 2
    assert sums.correct == 1


def test_the_loss_of_micro_batches_adds_up_to_that_of_the_step():
    logits_BTV = torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(0))
    labels_BT = torch.randint(0, 7, (6, 5), generator=torch.Generator().manual_seed(1))
    labels_BT[:4, :3] = -100
    whole = mean_answer_loss({"logits": logits_BTV}, labels_BT)
    count = (labels_BT[:, 1:] != -100).sum()
    halves = [
        mean_answer_loss({"logits": logits_BTV[part]}, labels_BT[part], count) for part in (slice(2), slice(2, 6))
    ]
    torch.testing.assert_close(sum(halves), whole)


def test_a_batch_of_blank_rows_has_no_loss_and_no_gradient():
    logits_BTV = torch.randn(1, 3, 4, requires_grad=True)
    loss = mean_answer_loss({"logits": logits_BTV}, torch.full((1, 3), -100), 10)
    loss.backward()
    assert loss == 0
    assert logits_BTV.grad.abs().max() == 0
