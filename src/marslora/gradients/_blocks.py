"""Which block of the model each trained tensor belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.gradients._base import Granularity

THIRDS = ("lower", "middle", "upper")
"""Of a stack of layers, from the input."""
OTHER = "other"
"""Of a tensor that is in no stack of layers: projectors, heads, embeddings."""


def block_names(names: Sequence[str], blocks: Granularity) -> list[str]:
    """The block of every tensor, from its parameter name: ``vision_tower.encoder.layers.lower``, for example.

    A stack is what stands before the first number in a path; its thirds are counted over the layers that occur, so
    layers that train nothing do not count.
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
