"""Training the embeddings of single tokens (``trainable_token_indices`` of PEFT), K members at once.

Every member has rows of its own for these tokens, (K, N, D), which start as those of the model. Where a head shares the
embedding's weights, it scores the tokens with the same rows; a head with weights of its own has rows of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import embedding

from marslora.adapters._base import AbstractAdapter, Factor, MemberSettings, TrainingPosition, factor_dtype

TOKEN_ROWS = "trainable_tokens_delta"
"""The name PEFT gives to the trained rows, although they are no differences."""


class TokenEmbedding(AbstractAdapter):
    """Replaces an embedding: the tokens in ``ids`` are looked up in each member's own rows."""

    places_V: Tensor
    """The place of each token among ``ids``, -1 for all others."""

    def __init__(
        self,
        base: Any,
        path: str,
        ids: Sequence[int],
        members: Sequence[MemberSettings],
        position: TrainingPosition,
    ):
        super().__init__(base, path, members, position)
        weight_VD = base.weight
        self.rows_KND = _copy_rows(base, ids, len(members))
        padding: Any = base.padding_idx
        self.padding: int | None = padding if padding in ids else None
        places_V = torch.full((len(weight_VD),), -1, dtype=torch.long)
        places_V[list(ids)] = torch.arange(len(ids))
        self.register_buffer("places_V", places_V.to(weight_VD.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Look up (K B, T) tokens."""
        y: Tensor = self.base(x)
        if not x.ndim or x.shape[0] % self.num_members:
            return y
        place_KBT = self.places_V[x.reshape(self.num_members, -1)]
        num_rows = self.rows_KND.shape[1]
        first_K1 = num_rows * torch.arange(self.num_members, device=x.device).unsqueeze(-1)
        rows = self.rows_KND.to(y.dtype).flatten(0, 1)
        own = embedding(place_KBT.clamp(min=0) + first_K1, rows).view(y.shape)
        if self.padding is not None:  # the row of padding learns nothing, as in any embedding
            own = torch.where((x == self.padding).unsqueeze(-1), own.detach(), own)
        scale = getattr(self.base, "embed_scale", None)  # Gemma's embeddings are multiplied by it
        if scale is not None:
            own = own * torch.as_tensor(scale, device=own.device).to(own.dtype)
        return torch.where((place_KBT >= 0).view(*x.shape, 1), own, y)

    def owns(self, member: int) -> bool:  # noqa: ARG002
        """Return True: every member has rows, whatever its ranks."""
        return True

    def factors(self) -> tuple[Factor, ...]:
        """Return the rows (K, N, D)."""
        return (Factor(TOKEN_ROWS, f"token_adapter.{TOKEN_ROWS}", "tokens", self.rows_KND),)


class TokenHead(AbstractAdapter):
    """Replaces a head: the tokens in ``ids`` are scored with each member's own rows, or with those of ``shared``."""

    ids_N: Tensor

    def __init__(
        self,
        base: Any,
        path: str,
        ids: Sequence[int],
        members: Sequence[MemberSettings],
        position: TrainingPosition,
        shared: TokenEmbedding | None = None,
    ):
        super().__init__(base, path, members, position)
        self._shared = [shared] if shared else []  # a list, so that its rows are not parameters of this module too
        self.rows_KND = None if shared else _copy_rows(base, ids, len(members))
        self.register_buffer("ids_N", torch.tensor(list(ids), device=base.weight.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Score hidden states, whose first two dimensions together are K equal chunks."""
        base: Any = self.base
        y: Tensor = base(x)
        rows_KND = self._shared[0].rows_KND if self._shared else self.rows_KND
        assert rows_KND is not None
        x_KMD = x.reshape(self.num_members, -1, x.shape[-1])
        if not torch.is_autocast_enabled(x.device.type):
            x_KMD = x_KMD.to(y.dtype)
        scores = torch.bmm(x_KMD, rows_KND.to(base.weight.dtype).mT).to(y.dtype)
        return y.index_copy(-1, self.ids_N, scores.view(*y.shape[:-1], -1))

    def owns(self, member: int) -> bool:  # noqa: ARG002
        """Return True: every member has rows, whatever its ranks."""
        return True

    def factors(self) -> tuple[Factor, ...]:
        """Return the rows (K, N, D); none if they are the embedding's."""
        if self.rows_KND is None:
            return ()
        return (Factor(TOKEN_ROWS, f"token_adapter.{TOKEN_ROWS}", "tokens", self.rows_KND),)


def build_token_adapters(
    model: nn.Module,
    indices: dict[str, tuple[int, ...]],
    tied_head: str | None,
    members: Sequence[MemberSettings],
    position: TrainingPosition,
) -> dict[str, AbstractAdapter]:
    """The adapters of an embedding and of a head by path: ``indices`` are the tokens whose rows each trains.

    ``tied_head`` is the path of a head that shares the weights of the embedding, the first of ``indices``.
    """
    built: dict[str, AbstractAdapter] = {}
    for path, ids in indices.items():
        kind: Any = TokenHead if built else TokenEmbedding
        built[path] = kind(model.get_submodule(path), path, ids, members, position)
    if tied_head and built:
        path, first = next(iter(built.items()))
        assert isinstance(first, TokenEmbedding)
        built[tied_head] = TokenHead(
            model.get_submodule(tied_head), tied_head, indices[path], members, position, shared=first
        )
    return built


def _copy_rows(base: Any, ids: Sequence[int], members: int) -> Parameter:
    rows_ND = base.weight.detach()[list(ids)].to(factor_dtype(base))
    return Parameter(rows_ND.unsqueeze(0).repeat(members, 1, 1))
