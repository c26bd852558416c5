"""Losses that keep routers from sending every token to one head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from marslora.methods._context import BatchContext, RoutingRecord


def mole(routed: Iterable[RoutingRecord], context: BatchContext) -> Tensor:
    """``mean_b sum_i mean(p_i) mean(1[i chosen])``, means over layers and tokens of a row (LLaVA-MoLE, 2401.16160).

    There is no factor N. Parts, and numbers of heads, are averaged apart; the second factor is a constant.
    """
    groups: dict[tuple[str, int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for one in routed:
        mean_BN, share_BN = _by_row(one, context)
        groups[one.part, *mean_BN.shape].append((mean_BN, share_BN))
    losses = []
    for found in groups.values():
        mean_BN = torch.stack([mean for mean, _ in found]).mean(0)
        share_BN = torch.stack([share for _, share in found]).mean(0)
        losses.append((mean_BN * share_BN).sum(-1).mean())
    return torch.stack(losses).mean()


def switch(routed: Iterable[RoutingRecord], context: BatchContext) -> Tensor:
    """``N sum_i f_i P_i`` over the tokens of a batch, the mean over routers (Switch Transformer, arXiv 2101.03961)."""
    losses = []
    for one in routed:
        p_TN, chosen_TN, weight_T = _tokens(one, context)
        total = weight_T.sum().clamp(min=1)
        mean_N = (p_TN * weight_T[:, None]).sum(0) / total
        share_N = (chosen_TN * weight_T[:, None]).sum(0) / total
        losses.append(len(mean_N) * (mean_N * share_N).sum())
    return torch.stack(losses).mean()


def _tokens(one: RoutingRecord, context: BatchContext) -> tuple[Tensor, Tensor, Tensor]:
    heads = one.probabilities.shape[-1]
    chosen_TN = one_hot(one.chosen, heads).float().flatten(0, -2)
    valid = context.valid(one.chosen.shape)
    weight_T = torch.ones_like(one.chosen, dtype=torch.float32) if valid is None else valid.float()
    return one.probabilities.flatten(0, -2), chosen_TN, weight_T.flatten()


def _by_row(one: RoutingRecord, context: BatchContext) -> tuple[Tensor, Tensor]:
    """(B, N) mean probability and share of the tokens of every row."""
    rows = one.probabilities.shape[0] if one.probabilities.ndim > 2 else 1
    p_TN, chosen_TN, weight_T = _tokens(one, context)
    weight_BT1 = weight_T.view(rows, -1, 1)
    total_B1 = weight_BT1.sum(1).clamp(min=1)
    p_BN = (p_TN.view(rows, -1, p_TN.shape[-1]) * weight_BT1).sum(1) / total_B1
    return p_BN, (chosen_TN.view(rows, -1, p_TN.shape[-1]) * weight_BT1).sum(1) / total_B1
