import pytest
import torch

from marslora.core.errors import ConfigError
from marslora.methods.modality_lora import ModalityLora
from marslora.methods.moka import Moka
from tests.unit.methods.worlds import logits, randomise, world

AT = "model.language_model.layers.0.self_attn.q_proj"


@pytest.fixture
def moka():
    def make(lam):
        model, batch, plan, _ = world(language=4)
        change = Moka(lam=lam).apply(model, plan)
        randomise(change)
        return model, batch, plan, change

    return make


def test_without_attention_and_with_equal_a_it_is_lora(moka):
    model, batch, plan, change = moka(0.0)
    for layer in change.layers.values():
        layer.lora_A[1].data.copy_(layer.lora_A[0].data)
    found = logits(change, batch)
    factors = {path: (layer.lora_A[0].data, layer.lora_B.data) for path, layer in change.layers.items()}
    change.remove()
    lora = ModalityLora(heads_in="^$").apply(model, plan)
    for path, (A, B) in factors.items():
        lora.mixture(path).lora_A[0].data.copy_(A)
        lora.mixture(path).lora_B[0].data.copy_(B)
    torch.testing.assert_close(found, logits(lora, batch))
    lora.remove()


def test_one_linear_is_the_equation(moka):
    model, batch, _, change = moka(0.7)
    layer, ids = change.layers[AT], batch["input_ids"]
    asked = torch.zeros_like(ids)
    asked[0, -3:], asked[1, -2:] = 1, 1
    change.context.read({**batch, "question_tokens": asked})
    x = torch.randn(*ids.shape, 64)
    expected = layer.base(x)
    for b in range(2):
        is_image = ids[b] == model.config.image_token_id
        h = torch.where(is_image[:, None], x[b] @ layer.lora_A[1].T, x[b] @ layer.lora_A[0].T)
        q = h[asked[b].bool() & ~is_image]
        attended = (h @ q.T / 4**0.5).softmax(-1) @ q
        h = h + 0.7 * attended * is_image[:, None]
        expected[b] += layer.scale * h @ layer.lora_B.T
    torch.testing.assert_close(layer(x), expected)
    change.remove()


def test_answers_are_never_looked_at(moka):
    _, batch, _, change = moka(1.0)
    layer, ids = change.layers[AT], batch["input_ids"]
    asked = torch.zeros_like(ids)
    asked[:, -3:-1] = 1
    change.context.read({**batch, "question_tokens": asked})
    x = torch.randn(*ids.shape, 64)
    other = x.clone()
    other[:, -1] += 1.0
    assert torch.equal(layer(x)[:, :-1], layer(other)[:, :-1])
    change.context.read({**batch, "question_tokens": torch.zeros_like(ids)})
    assert torch.isfinite(layer(x)).all()
    change.remove()


def test_a_decoding_step_is_text(moka):
    _, _, _, change = moka(1.0)
    layer = change.layers[AT]
    change.context.read({"input_ids": torch.tensor([[5], [7]])})
    x = torch.randn(2, 1, 64)
    expected = layer.base(x) + layer.scale * x @ layer.lora_A[0].T @ layer.lora_B.T
    torch.testing.assert_close(layer(x), expected)
    change.remove()


def test_it_cannot_be_merged(moka):
    change = moka(0.05)[-1]
    with pytest.raises(ConfigError, match="cannot be merged"):
        change.low_ranks()
    change.remove()
    with pytest.raises(ConfigError, match="`lam`"):
        Moka(lam=-1)
