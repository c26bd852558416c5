"""Rows of single tokens train in packs as PEFT's ``trainable_token_indices`` train them, tied to the head or not."""

import pytest
import torch
from torch import nn

from marslora.core.errors import ConfigError
from marslora.models.discovery import discover
from tests.helpers.exactness import assert_exact, assert_twins
from tests.helpers.tiny_models import TINY, build
from tests.twins.worlds import member, tiny_base, train_packed, trained_twice, varied

ALL = [name for name in TINY if discover(build(name)[0]).tokens]
"""The architectures whose rows of tokens can be trained in packs: all but one with an encoder for text."""
FAST = ("llava", "gemma3", "qwen2_audio")


def pick_ids(base, batch):
    """Tokens of the batch: of answers, of a question, and one that no row has."""
    used = batch["input_ids"].unique().tolist()
    answers = batch["labels"][batch["labels"] >= 0].unique().tolist()
    unused = next(each for each in range(base.info.tokens.rows) if each not in used)
    return tuple(sorted({*answers[:2], used[1], unused}))


def world(name, dtype, tied, **settings):
    base, batch = tiny_base(name, dtype, **settings)
    if tied != base.info.tokens.is_tied:
        base.model.config.tie_word_embeddings = tied
        embedding, head = base.model.get_input_embeddings(), base.model.get_output_embeddings()
        head.weight = embedding.weight if tied else nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
        base.info = base.info.model_copy(update={"tokens": discover(base.model).tokens})
    base.training = base.training.model_copy(update={"trainable_token_indices": pick_ids(base, batch)})
    return base, batch


def three(base):
    return [
        member(base, 1, seed=1, learning_rate=2**-10, decays=True),
        member(base, {"language": 0} | {part.name: 4 for part in base.info.parts if part.name != "language"}, seed=2),
        member(base, 8, seed=3),
    ]


@pytest.mark.parametrize(
    ("name", "tied"),
    [
        pytest.param(name, tied, marks=[] if name in FAST else pytest.mark.slow)
        for name in ALL
        for tied in (True, False)
    ],
)
def test_packed_equals_peft(name, tied):
    if world(name, torch.float32, tied)[0].info.tokens.is_tied != tied:
        pytest.skip("PEFT does not tie the head of this architecture")

    def train(dtype):
        base, batch = world(name, dtype, tied, clip_norm=0.5, weight_decay=0.01)
        return trained_twice(base, three(base), varied(batch, 2))

    if name in FAST:
        assert_twins(train)
        return
    for ours, truth in zip(*train(torch.float64), strict=True):
        assert_exact(ours, truth)


def test_rows_of_other_tokens_stay_and_each_member_has_its_own():
    base, batch = world("llava", torch.float32, tied=True)
    before = base.model.get_input_embeddings().weight.detach().clone()
    weights, _ = train_packed(base, three(base), varied(batch, 3))
    key = f"{base.info.tokens.embedding}.token_adapter.trainable_tokens_delta"
    ids = list(base.training.trainable_token_indices)
    assert torch.equal(base.model.get_input_embeddings().weight, before)
    assert all(one[key].shape == before[ids].shape and not torch.equal(one[key], before[ids]) for one in weights)
    assert not torch.equal(weights[0][key], weights[2][key])
    assert not any("lm_head" in name for name in weights[0])


def test_a_head_of_its_own_has_rows_of_its_own():
    base, batch = world("llava", torch.float32, tied=False)
    (weights, *_), _ = train_packed(base, three(base), varied(batch, 1))
    names = {name for name in weights if "token_adapter" in name}
    assert names == {f"{path}.token_adapter.trainable_tokens_delta" for path in base.info.tokens.paths}
    assert len(names) == 2


def test_models_with_an_encoder_for_text_refuse_them():
    info = discover(build("florence2")[0])
    assert info.token_indices(()) == {}
    with pytest.raises(ConfigError, match="`trainable_token_indices` cannot be trained in Florence2"):
        info.token_indices((3,))
    info = discover(build("llava")[0])
    with pytest.raises(ConfigError, match=rf"must be below {info.tokens.rows}, .* found \[{info.tokens.rows}\]"):
        info.token_indices((3, info.tokens.rows))
