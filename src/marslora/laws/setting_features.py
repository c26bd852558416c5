"""What the law of settings sees of a setting: which parts are trained, their ranks, the learning rate, and products.

Every coordinate is 0 at the usual setting (rank 16 of every part at the middle learning rate) and about 1 at the end of
a usual ladder: ``u = log2(rank / 16) / 2`` and ``z = log2(rate / middle rate) / 2``, so 1 is a factor of 4.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marslora.core.arrays import Array
from marslora.core.setting import Setting

USUAL_RANK = 16
"""The rank at which the coordinate of a rank is 0: a common default of LoRA."""
LOG2_UNIT = 2.0
"""Doublings of a rank or rate that move its coordinate by 1: one rung of a ladder that goes up by factors of 4."""
NEAR = 1.3
"""The coordinate up to which there are tables."""
KINDS = ("language", "tower")
"""Kinds of parts, which differ in how much their ranks matter: the language model, and every other part."""
PART_GROUPS = (
    "trained",
    "rank",
    "rank_squared",
    "rate_rank",
    "rate_trained",
    "rate_squared_rank",
    "rate_rank_squared",
)
"""Groups of features of one part, each with constants of its own for each kind."""
GROUPS = (
    *(f"{group}.{kind}" for group in PART_GROUPS for kind in KINDS),
    "rate",
    "rate_squared",
    "rate_cubed",
    "rank_rank",
    "rate_rank_rank",
    "trained_trained",
    "trained_rank",
    "factor",
    "factor_squared",
)
"""Groups of features. The coefficients of a group have one prior, so the law knows any number of parts by any name."""


@dataclass(frozen=True)
class Features:
    """C settings as the law sees them."""

    value_CF: Array
    """The features, whose coefficients the law learns."""
    group_F: tuple[str, ...]
    """The group of each feature, one of `GROUPS`."""
    place_CD: Array
    """The coordinates: whether each part is trained, the rank of each, the factor of each, and the learning rate."""
    num_steps: float
    """Optimizer steps of a full run."""
    scale_D: tuple[str, ...]
    """Which of the lengths ``trained``, ``rank`` and ``rate`` belongs to each coordinate."""


def make_features(
    settings: Sequence[Setting], parts: Sequence[str], middle_rate: float | None, num_steps: float
) -> Features:
    """The features of settings.

    Args:
        settings: The candidates.
        parts: The parts whose ranks are searched.
        middle_rate: Learning rate at which its coordinate is 0; None if it is not searched.
        num_steps: Optimizer steps of a full run.
    """
    rank_CM = np.array([[setting.allocation[part] for part in parts] for setting in settings], dtype=float)
    trained_CM = (rank_CM > 0).astype(float)
    u_CM = np.where(rank_CM > 0, np.log2(np.maximum(rank_CM, 1) / USUAL_RANK) / LOG2_UNIT, 0.0)
    rate_C = np.array([setting.learning_rate or 1.0 for setting in settings])
    z_C = np.log2(rate_C / middle_rate) / LOG2_UNIT if middle_rate else np.zeros(len(settings))
    factor_CM = np.array(
        [
            [(setting.rate_of(part) or 1.0) / rate for part in parts]
            for setting, rate in zip(settings, rate_C, strict=True)
        ]
    )
    f_CM = np.log2(factor_CM) / LOG2_UNIT if middle_rate else np.zeros_like(factor_CM)
    kinds = ["language" if part == "language" else "tower" for part in parts]
    columns = _list_columns(kinds, trained_CM, u_CM, f_CM, z_C)
    return Features(
        value_CF=np.stack([column for _, column in columns], axis=1),
        group_F=tuple(group for group, _ in columns),
        place_CD=np.concatenate([trained_CM, u_CM, f_CM, z_C[:, None]], axis=1),
        num_steps=num_steps,
        scale_D=("trained",) * len(parts) + ("rank",) * len(parts) + ("rate",) * (len(parts) + 1),
    )


def _list_columns(
    kinds: Sequence[str], trained_CM: Array, u_CM: Array, f_CM: Array, z_C: Array
) -> list[tuple[str, Array]]:
    """(group, values) of every feature. A part that is always trained has no feature that says so.

    Features of several parts of one kind, and of several pairs of parts, are shared among them, because the tables have
    one of each. Products of three coordinates are not carried on beyond `NEAR`: no table says how they go on there.
    """
    optional = [m for m in range(len(kinds)) if not trained_CM[:, m].all()]
    near_z_C, near_u_CM = np.clip(z_C, -NEAR, NEAR), np.clip(u_CM, -NEAR, NEAR)
    columns = [("rate", z_C), ("rate_squared", z_C**2), ("rate_cubed", near_z_C**3)]
    for m, kind in enumerate(kinds):
        share = 1 / kinds.count(kind)
        u_C, f_C, near_u_C = u_CM[:, m], f_CM[:, m], near_u_CM[:, m]
        columns += [(f"rank.{kind}", share * u_C), (f"rank_squared.{kind}", share * u_C**2)]
        columns += [(f"rate_rank.{kind}", share * z_C * u_C)]
        columns += [(f"rate_squared_rank.{kind}", share * near_z_C**2 * near_u_C)]
        columns += [(f"rate_rank_squared.{kind}", share * near_z_C * near_u_C**2)]
        columns += [("factor", share * f_C), ("factor_squared", share * f_C**2)] if f_C.any() else []
        if m in optional:
            trained_C = share * trained_CM[:, m]
            columns += [(f"trained.{kind}", trained_C), (f"rate_trained.{kind}", z_C * trained_C)]
    pairs = len(kinds) * (len(kinds) - 1) / 2
    for a, b in itertools.combinations(range(len(kinds)), 2):
        share, both_C = 1 / pairs, u_CM[:, a] * u_CM[:, b]
        columns += [
            ("rank_rank", share * both_C),
            ("rate_rank_rank", share * near_z_C * near_u_CM[:, a] * near_u_CM[:, b]),
        ]
        for m, n in ((a, b), (b, a)):
            columns += [("trained_rank", share * trained_CM[:, m] * u_CM[:, n])] if m in optional else []
        if a in optional and b in optional:
            columns += [("trained_trained", share * trained_CM[:, a] * trained_CM[:, b])]
    return columns
