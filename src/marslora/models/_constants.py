"""Find weight matrices that hold a single number: what such a layer computes does not depend on its input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn

from marslora.core.errors import ModelError
from marslora.core.parts import PartInfo
from marslora.models._weights import list_names
from marslora.models.discovery import discover

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
"""Modules whose weight is learned and differs from number to number once it is."""
_NUM_LOOKED_AT = 64
"""Numbers of a matrix that are compared first; of a trained one, two of them differ."""


def check_constants(model: nn.Module, path: str) -> tuple[str, ...]:
    """Raise `ModelError` for a projector with a matrix of a single number, or a tower that has no other; return a
    warning if there is such a matrix elsewhere, since new blocks may begin as zeros."""
    constant = [f"{name}.weight" for name, weight in _list_matrices(model) if _is_constant(weight)]
    if not constant:
        return ()
    parts: tuple[PartInfo, ...] = ()
    with contextlib.suppress(ModelError):  # a model without parts is refused where they are needed
        parts = discover(model).parts
    for part in parts:
        own = [f"{at}.{name}.weight".replace("..", ".") for at in part.paths for name, _ in _list_matrices(model, at)]
        empty = [name for name in constant if name in own]
        is_dead = bool(empty) if part.name.startswith("projector") else empty and len(empty) == len(own)
        if is_dead and part.name != "language":
            raise ModelError(
                f"{len(empty)} of {len(own)} weight matrices of the {part.name} of `{path}` hold a single number "
                f"({list_names(empty)}), so that it gives the same whatever it reads. Download or save the model "
                "again, with all its parts."
            )
    are = "matrix holds" if len(constant) == 1 else "matrices hold"
    return (
        f"{len(constant)} weight {are} a single number: {list_names(constant)}. What such a layer computes does not "
        "depend on its input. If it was not meant to begin so, download the model again.",
    )


def _list_matrices(model: nn.Module, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """(path in the module at ``path``, weight) of every matrix of plain numbers."""
    for name, module in model.get_submodule(path).named_modules():
        weight = module.weight if isinstance(module, _MATRICES) else None
        if isinstance(weight, Tensor) and weight.is_floating_point() and weight.numel() > 1 and not weight.is_meta:
            yield name, weight.detach()


def _is_constant(weight: Tensor) -> bool:
    flat = weight.reshape(-1)
    some = flat[:: max(1, len(flat) // _NUM_LOOKED_AT)]
    return bool((some == flat[0]).all()) and bool((flat == flat[0]).all())
