"""Place the names of points in a chart so that they do not cover each other."""

from __future__ import annotations

from collections.abc import Sequence

Place = tuple[float, float]
LETTER, LINE = 0.018, 0.055
"""Width of a letter and height of a line, as shares of the axes of a chart half a page wide."""
GAP = 0.02
POSITIONS: dict[str, Place] = {
    "top center": (0, 1), "bottom center": (0, -1), "middle right": (1, 0), "middle left": (-1, 0),
    "top right": (1, 1), "bottom right": (1, -1), "top left": (-1, 1), "bottom left": (-1, -1),
}  # fmt: skip
"""Plotly's text positions with their directions (x, y), in order of preference."""


def pad_range(values: Sequence[float]) -> list[float]:
    """The range (low, high) of an axis, with room at its ends for points and names."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.12 * (high - low) or 0.1
    return [low - room, high + room]


def locate_on_axis(value: float, ends: Sequence[float]) -> float:
    """How far along an axis a value lies: 0 at its low end, 1 at its high end."""
    return (value - ends[0]) / (ends[1] - ends[0])


def place_names(points: Sequence[Place], names: Sequence[str]) -> list[str]:
    """Choose a position for each name: the one in which it covers least of the points and of the names placed before.

    ``points`` are given as shares of the axes, from 0 to 1. Returns keys of `POSITIONS`.
    """
    taken = [(x, y, GAP, LINE / 2) for x, y in points]
    chosen: list[str] = []
    for (x, y), name in zip(points, names, strict=True):
        boxes = {position: make_box(x, y, way, len(name) * LETTER) for position, way in POSITIONS.items()}
        best = min(boxes, key=lambda position: sum(measure_overlap(boxes[position], other) for other in taken))
        taken.append(boxes[best])
        chosen.append(best)
    return chosen


Box = tuple[float, float, float, float]
"""Centre, width and height."""


def make_box(x: float, y: float, way: Place, width: float) -> Box:
    across, up = way
    return x + across * (width / 2 + GAP), y + up * (LINE / 2 + GAP), width, LINE


def measure_overlap(one: Box, other: Box) -> float:
    """The area that two boxes share, and the part of the first that lies outside the chart."""
    across = min(one[0] + one[2] / 2, other[0] + other[2] / 2) - max(one[0] - one[2] / 2, other[0] - other[2] / 2)
    up = min(one[1] + one[3] / 2, other[1] + other[3] / 2) - max(one[1] - one[3] / 2, other[1] - other[3] / 2)
    outside = max(one[0] + one[2] / 2 - 1, 0.0) + max(one[2] / 2 - one[0], 0.0)
    return max(across, 0.0) * max(up, 0.0) + outside * one[3]
