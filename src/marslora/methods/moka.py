"""An A for each modality, one shared B, and pictures that attend to the question in rank space (MokA)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import linear, scaled_dot_product_attention

from marslora.adapters import factor_dtype
from marslora.core.errors import ConfigError
from marslora.core.linears import read_linear_sizes
from marslora.methods import _own_folder
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch, LowRank
from marslora.methods._context import BatchContext
from marslora.methods._layers import AbstractAdapterLayer, AdaptedModel
from marslora.methods._mixture import cast_like, draw_a


class Moka(AbstractMethod):
    """MokA (Wei et al. 2025, arXiv 2506.05191): ``h = W x + s B (A_m x + lam Att(A_m x, A_t q, A_t q))``.

    The attention has one head and no parameters, and applies only to tokens that are not text. q are the text tokens
    that a user wrote, so no token attends to answers. Picture tokens attend to words after them, so a prefix of
    pictures cannot be cached and used with another question.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractMethod.Config):
        """The weight of the attention."""

        lam: Annotated[float, Field(ge=0)] = 0.05
        """Weight of the attention. The default is that of the authors' visual-text code; their audio-visual code has
        1."""

    config: Config

    merges = "no"
    serves = "Python with marslora: what is added depends on the whole prompt"
    wants_questions = True

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> MokaModel:  # noqa: ARG002
        """Give the language model's linears an A for each modality, and all other linears plain LoRA."""
        context = BatchContext(model)
        if not context.tokens:
            raise ConfigError(
                f"The configuration of {type(model).__name__} does not name the tokens of pictures or sound, "
                "which `moka` needs. Choose another adapter, such as `lora`."
            )
        plan = plan.model_copy(update={"modalities": context.modalities})
        change = MokaModel(model, plan, context)
        change.method = self
        for path in plan.ranks:
            change.insert_layer(path, lambda base, at, context: MokaLinear(base, at, context, plan, self.config.lam))
        change.inject_whole_modules()
        return change

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Count ``M r I + r O`` for each linear of the language model and ``r (I + O)`` for any other."""
        return sum(
            rank * (num_modalities(plan, path) * sizes[path][0] + sizes[path][1]) for path, rank in plan.ranks.items()
        )


class MokaModel(AdaptedModel):
    """A model with `MokaLinear` layers."""

    method: Moka

    def save(self, folder: Path) -> None:
        """Write a folder that `marslora.attach` reads."""
        _own_folder.write(folder, self, self.method)


class MokaLinear(AbstractAdapterLayer):
    """One linear. Parameters: ``lora_A.m`` (R, I) for each modality, ``lora_B`` (O, R)."""

    def __init__(self, base: nn.Module, path: str, context: BatchContext, plan: AdapterPlan, lam: float):
        super().__init__(base, path, context)
        inputs, outputs = read_linear_sizes(base)
        rank, device, dtype = plan.ranks[path], next(base.parameters()).device, factor_dtype(base)
        self.rank, self.scale, self.lam = rank, plan.scale, lam
        names = ["lora_A", *(f"lora_A.{m}" for m in range(1, num_modalities(plan, path)))]
        self.lora_A = nn.ParameterList(
            Parameter(draw_a(rank, inputs, plan.seed, path, name).to(device, dtype)) for name in names
        )
        self.lora_B = Parameter(torch.zeros(outputs, rank, device=device, dtype=dtype))
        self.lora_dropout = nn.Dropout(plan.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the linear's output plus the change for each token's modality."""
        y: Tensor = self.base(x)
        if not self.context.enabled:
            return y
        A_SI = torch.cat(list(self.lora_A))
        h = linear(self.lora_dropout(cast_like(x, A_SI)), A_SI)
        h = h.view(*h.shape[:-1], len(self.lora_A), self.rank)
        if len(self.lora_A) == 1:
            h = h.squeeze(-2)
        else:
            place_BT = self.context.modality_places(x)
            h = h.gather(-2, place_BT[..., None, None].expand(*place_BT.shape, 1, self.rank)).squeeze(-2)
            if self.lam:
                h = h + self.lam * self._attention(h, place_BT)
        return y + (self.scale * linear(h, self.lora_B)).to(y.dtype)

    def _attention(self, h_BTR: Tensor, place_BT: Tensor) -> Tensor:
        """Return what tokens other than text read from the question; 0 for text and for rows without a question."""
        is_question_BT = self.context.questions(place_BT == 0)
        longest = int(is_question_BT.sum(-1).max())
        if longest == 0 or not bool((place_BT > 0).any()):
            return torch.zeros_like(h_BTR)
        first_BQ = is_question_BT.int().argsort(dim=-1, descending=True, stable=True)[:, :longest]
        q_BQR = h_BTR.gather(1, first_BQ[..., None].expand(-1, -1, h_BTR.shape[-1]))
        valid_BQ = is_question_BT.gather(1, first_BQ)
        has_question_B = valid_BQ.any(-1)
        mask_B1Q = (valid_BQ | ~has_question_B[:, None])[:, None]
        read_BTR = scaled_dot_product_attention(h_BTR, q_BQR, q_BQR, mask_B1Q, scale=1 / math.sqrt(self.rank))
        return read_BTR * ((place_BT > 0) & has_question_B[:, None])[..., None]

    def roles(self) -> Iterator[tuple[str, str, Parameter]]:
        """Iterate over every A, and B."""
        yield from (("lora_A" if m == 0 else f"lora_A.{m}", "A", A_RI) for m, A_RI in enumerate(self.lora_A))
        yield "lora_B", "B", self.lora_B

    def low_rank(self, task: str | None = None) -> LowRank:  # noqa: ARG002
        """Return the change of a linear outside the language model. Raises `ConfigError` for any other."""
        if len(self.lora_A) > 1:
            raise ConfigError(
                f"What MokA adds to `{self.path}` depends on the prompt and cannot be merged. Run the model with its "
                "adapter (`marslora.attach`)."
            )
        return LowRank(self.lora_A[0].detach(), self.lora_B.detach(), self.scale)


def num_modalities(plan: AdapterPlan, path: str) -> int:
    """Return the number of modalities of the tokens that a linear reads."""
    return len(plan.modalities) if plan.parts[path] == "language" else 1
