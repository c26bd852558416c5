"""Logits that need no gradient are scored in pieces, to the same numbers."""

import pytest
import torch

from marslora.models import answers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_tokens", [0, 1, 23])
def test_pieces_give_the_same_numbers(monkeypatch, dtype, num_tokens):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, num_tokens, 50, generator=generator).to(dtype)
    tokens = torch.randint(50, (num_tokens,), generator=generator)
    whole = answers.token_nats(logits.clone().requires_grad_(), tokens).detach()
    sizes = []
    real = answers.cross_entropy
    monkeypatch.setattr(answers, "cross_entropy", lambda x, *a, **k: sizes.append(len(x)) or real(x, *a, **k))
    monkeypatch.setattr(answers, "SCORED_LOGITS", 400)
    assert torch.equal(answers.token_nats(logits, tokens), whole)
    assert max(sizes, default=0) <= 8 and sum(sizes) == 3 * num_tokens
