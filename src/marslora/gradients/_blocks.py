"""Which block of the model each trained tensor belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.gradients._base import Granularity

THIRDS = ("lower", "middle", "upper")
"""The thirds of a stack of layers, from the input."""
OTHER = "other"
"""The block of tensors that are in no stack of layers: projectors, heads, embeddings."""


def block_names(names: Sequence[str], blocks: Granularity) -> list[str]:
    """Return the block of every tensor, from its parameter name: ``vision_tower.encoder.layers.lower``, for example.

    The name of a stack is the path before the first number. Its thirds are those of the layers that occur in ``names``,
    so layers that train nothing do not count.
    """
    if blocks == "global":
        return ["all"] * len(names)
    if blocks == "tensors":
        return list(names)
    places = [_place(name) for name in names]
    layers: dict[str, list[int]] = {}
    for stack, layer in filter(None, places):
        if layer not in layers.setdefault(stack, []):
            layers[stack].append(layer)
    return [_name(place, layers, blocks) for place in places]


def _place(name: str) -> tuple[str, int] | None:
    """The stack and the number of the layer in a parameter's path."""
    steps = name.removeprefix("base_model.model.").split(".")
    for index, step in enumerate(steps):
        if step.isdecimal():
            return ".".join(steps[:index]), int(step)
    return None


def _name(place: tuple[str, int] | None, layers: dict[str, list[int]], blocks: Granularity) -> str:
    if place is None:
        return OTHER
    stack, layer = place
    if blocks == "layers":
        return f"{stack}.{layer}".lstrip(".")
    known = sorted(layers[stack])
    return f"{stack}.{THIRDS[known.index(layer) * len(THIRDS) // len(known)]}".lstrip(".")
