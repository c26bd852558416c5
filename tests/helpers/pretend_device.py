"""A device that pretends not to be the CPU, so that tests see without a GPU where a program waits for one.

Tensors on it say that their device is ``meta``. What they compute is computed on the CPU, and whatever brings a number
back, or mixes both devices as no GPU could, is noticed.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import marslora

DEVICE = torch.device("meta")
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2"}
"""Operations on tensors of a GPU for whose result the CPU waits; boolean indices (`index`) are the last of them."""
OURS = str(Path(marslora.__file__).parent)


class FarTensor(torch.Tensor):
    """A tensor on the pretended device; ``near`` holds its numbers."""

    @staticmethod
    def __new__(cls, near, requires_grad=False):
        layout = {"strides": near.stride(), "storage_offset": near.storage_offset(), "dtype": near.dtype}
        return torch.Tensor._make_wrapper_subclass(
            cls, near.shape, device=DEVICE, requires_grad=requires_grad, **layout
        )

    def __init__(self, near, requires_grad=False):
        self.near = near

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} runs outside of `pretend_device`")


class _Watch(TorchDispatchMode):
    """Computes on the CPU what is asked of the pretended device, and writes down where numbers come back."""

    def __init__(self):
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        far: list[FarTensor] = []
        near: list[torch.Tensor] = []

        def bring(leaf: Any) -> Any:
            if isinstance(leaf, FarTensor):
                far.append(leaf)
                return leaf.near
            if isinstance(leaf, torch.Tensor) and leaf.ndim:
                near.append(leaf)
            return leaf

        args, kwargs = tree_map(bring, args), tree_map(bring, kwargs or {})
        name, target = func._schema.name, kwargs.get("device")
        is_far = bool(far) if target is None else torch.device(target).type == DEVICE.type
        moves = name in ("aten::_to_copy", "aten::copy_")
        if far and (name in WAITS or (moves and not is_far) or (name == "aten::copy_" and near) or _finds(name, args)):
            self.places.append(_find_place(name))
        assert not far or not near or moves or name.startswith("aten::index"), f"{name} mixes both devices"
        if target is not None:
            kwargs["device"] = "cpu"
        known = {id(leaf.near): leaf for leaf in far}
        result = func(*args, **kwargs)
        if not is_far and not (name == "aten::copy_" and far):
            return result
        return tree_map(lambda x: known.get(id(x), FarTensor(x)) if type(x) is torch.Tensor else x, result)


def _finds(name: str, args: Any) -> bool:
    """Whether an operation has to find out how many elements a mask selects."""
    masks = args[1] if name.startswith("aten::index") and isinstance(args[1], list | tuple) else ()
    return name == "aten::index.Tensor" and any(mask is not None and mask.dtype == torch.bool for mask in masks)


def _find_place(name: str) -> str:
    """The innermost line of this package, or of a model, that asked for it."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(OURS) or "/transformers/" in frame.filename:
            return f"{name} at {frame.filename}:{frame.lineno} {frame.line}"
    return name


@contextlib.contextmanager
def pretend_device(monkeypatch: Any) -> Iterator[list[str]]:
    """Within it ``meta`` is a device that computes. Yields the places at which the CPU waited for it, as they come."""
    enabled, dtype = torch.is_autocast_enabled, torch.get_autocast_dtype
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind="cpu": kind != DEVICE.type and enabled(kind))
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: dtype("cpu" if kind == DEVICE.type else kind))
    tolist, tensor = torch.Tensor.tolist, torch.tensor
    is_far = lambda device: device is not None and torch.device(device).type == DEVICE.type  # noqa: E731
    with _Watch() as watch:

        def bring_list(own: torch.Tensor) -> Any:
            if isinstance(own, FarTensor):
                watch.places.append(_find_place("tolist"))
                return own.near.tolist()
            return tolist(own)

        def make(data: Any, *, device: Any = None, **kwargs: Any) -> torch.Tensor:
            data = tree_map(lambda leaf: leaf.tolist() if isinstance(leaf, FarTensor) else leaf, data)
            made = tensor(data, device="cpu" if is_far(device) else device, **kwargs)
            return made.to(DEVICE) if is_far(device) else made

        monkeypatch.setattr(torch.Tensor, "tolist", bring_list)
        monkeypatch.setattr(torch, "tensor", make)
        yield watch.places
