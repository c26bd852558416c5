"""Losses that keep routers from sending every token to one head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from marslora.methods._context import BatchContext, RoutingRecord


def mole_loss(routed: Iterable[RoutingRecord], context: BatchContext) -> Tensor:
    """Return the load balance of LLaVA-MoLE (arXiv 2401.16160), ``mean_b sum_i mean(p_i) mean(1[i chosen])``.

    The inner means are over the layers and the tokens of a row. There is no factor N. Layers of different parts, or
    with different numbers of heads, are averaged separately. The second factor is a constant.
    """
    groups: dict[tuple[str, int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for record in routed:
        mean_BN, share_BN = _average_by_row(record, context)
        groups[record.part, *mean_BN.shape].append((mean_BN, share_BN))
    losses = []
    for group in groups.values():
        mean_BN = torch.stack([mean for mean, _ in group]).mean(0)
        share_BN = torch.stack([share for _, share in group]).mean(0)
        losses.append((mean_BN * share_BN).sum(-1).mean())
    return torch.stack(losses).mean()


def switch_loss(routed: Iterable[RoutingRecord], context: BatchContext) -> Tensor:
    """Return ``N sum_i f_i P_i`` over a batch's tokens, averaged over routers (Switch Transformer, 2101.03961)."""
    losses = []
    for record in routed:
        p_TN, chosen_TN, weight_T = _flatten_tokens(record, context)
        total = weight_T.sum().clamp(min=1)
        mean_N = (p_TN * weight_T[:, None]).sum(0) / total
        share_N = (chosen_TN * weight_T[:, None]).sum(0) / total
        losses.append(len(mean_N) * (mean_N * share_N).sum())
    return torch.stack(losses).mean()


def _flatten_tokens(record: RoutingRecord, context: BatchContext) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (T, N), choices (T, N) as 0 or 1, and weights (T,), which are 0 for padding."""
    heads = record.probabilities.shape[-1]
    chosen_TN = one_hot(record.chosen, heads).float().flatten(0, -2)
    valid = context.valid(record.chosen.shape)
    weight_T = torch.ones_like(record.chosen, dtype=torch.float32) if valid is None else valid.float()
    return record.probabilities.flatten(0, -2), chosen_TN, weight_T.flatten()


def _average_by_row(record: RoutingRecord, context: BatchContext) -> tuple[Tensor, Tensor]:
    """Return the mean probability and the share of tokens of every head in every row, each (B, N)."""
    rows = record.probabilities.shape[0] if record.probabilities.ndim > 2 else 1
    p_TN, chosen_TN, weight_T = _flatten_tokens(record, context)
    weight_BT1 = weight_T.view(rows, -1, 1)
    total_B1 = weight_BT1.sum(1).clamp(min=1)
    p_BN = (p_TN.view(rows, -1, p_TN.shape[-1]) * weight_BT1).sum(1) / total_B1
    return p_BN, (chosen_TN.view(rows, -1, p_TN.shape[-1]) * weight_BT1).sum(1) / total_B1
