"""The fields of a parameter group that describe its parameters (see `AbstractOptimizer`), and their checks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from marslora.core.errors import ConfigError
from marslora.core.linears import RANK_DIMS

ROLES = ("A", "B", "full", "magnitude", "router", "tokens", "other")
"""What a parameter can be; optimizers choose their rule by it."""
FIELDS: dict[str, Any] = {
    "members": None,
    "ranks": None,
    "rank_dim": None,
    "role": "other",
    "part": "",
    "active": None,
}
"""The fields with their defaults: an ordinary parameter without a role."""


def num_members(group: dict[str, Any]) -> int:
    """The number of members K; 1 for ordinary parameters."""
    return group["members"] or 1


def active_members(group: dict[str, Any]) -> list[int]:
    """The members of the group that may move."""
    active = group["active"]
    return [k for k in range(num_members(group)) if active is None or bool(active[k])]


def rank_of(group: dict[str, Any], member: int) -> int | None:
    """A member's true rank; None if the group has no ``ranks``."""
    return None if group["ranks"] is None else group["ranks"][member]


def check_group(group: dict[str, Any], first: dict[str, Any]) -> None:
    """Fill in ``rank_dim``; `ConfigError` if fields contradict each other, the parameters or the ``first`` group."""
    members, ranks, role = group["members"], group["ranks"], group["role"]
    if role not in ROLES:
        raise ConfigError(f"The `role` of a parameter group must be one of {list(ROLES)}, found `{role}`.")
    if members != first["members"]:
        raise ConfigError(
            f"All parameter groups must have the same `members`, found {first['members']} and {members}. A parameter "
            "shared by members would let them influence each other: give it its own optimizer."
        )
    if group["rank_dim"] is None:
        group["rank_dim"] = RANK_DIMS.get(role)
    if ranks is not None:
        _check_ranks(group)
    for param in group["params"]:
        _check_param(param, group)


def _check_ranks(group: dict[str, Any]) -> None:
    group["ranks"] = tuple(int(rank) for rank in group["ranks"])
    if len(group["ranks"]) != num_members(group):
        raise ConfigError(
            f"`ranks` must have one entry for each of {num_members(group)} members, found {group['ranks']}."
        )
    if group["rank_dim"] is None or group["rank_dim"] >= 0:
        raise ConfigError(
            f"A group with `ranks` must have role A or B, or a negative `rank_dim`; found {group['rank_dim']}."
        )


def _check_param(param: Tensor, group: dict[str, Any]) -> None:
    members, ranks = group["members"], group["ranks"]
    if members is not None and (param.ndim == 0 or param.shape[0] != members):
        raise ConfigError(
            f"The shape of a parameter of {members} members must start with {members}, found {tuple(param.shape)}. "
            "Stack the members along the first dimension, or leave `members` out."
        )
    if ranks is not None and not 0 <= min(ranks) <= max(ranks) <= param.shape[group["rank_dim"]]:
        raise ConfigError(
            f"`ranks` must be at most the size of dimension {group['rank_dim']} of every parameter, found {ranks} for "
            f"the shape {tuple(param.shape)}."
        )
