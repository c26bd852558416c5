"""Keep members apart in a model that runs its projector once for every image, as Phi-4 multimodal does.

Adapters tell members apart by their place in the batch. A call with a single image has no such place, but images come
in the order of the batch: of K members and K B images, image i belongs to member i // B. The other members get zeros,
which leave no gradient, so that each image costs K runs of the projector.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from marslora.adapters import AbstractAdapter

BY_IMAGE = {"Phi4MultimodalImageEmbedding": "image_pixel_values"}
"""Classes that run their own linears once for every image, and their argument that holds all images."""


@contextlib.contextmanager
def separate_images(model: nn.Module, members: int) -> Iterator[None]:
    """Within it, adapters that are run once for every image know whose image it is. Put adapters in place before."""
    owners = [module for module in model.modules() if members > 1 and type(module).__name__ in BY_IMAGE]
    with contextlib.ExitStack() as stack:
        for owner in owners:
            stack.enter_context(_count_images(owner, members))
        yield


@contextlib.contextmanager
def _count_images(owner: nn.Module, members: int) -> Iterator[None]:
    adapters = [child for child in owner.children() if isinstance(child, AbstractAdapter)]
    argument, run = BY_IMAGE[type(owner).__name__], owner.forward
    num_images = 0
    num_calls: dict[AbstractAdapter, int] = {}

    def start(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_images
        num_images = len(kwargs[argument])
        num_calls.update(dict.fromkeys(adapters, 0))
        return run(*args, **kwargs)

    def for_member(adapter: AbstractAdapter, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run_one(x_1NI: Tensor) -> Tensor:
            member = num_calls[adapter] * members // num_images
            num_calls[adapter] += 1
            x_KNI = torch.cat([x_1NI if k == member else torch.zeros_like(x_1NI) for k in range(members)])
            return forward(x_KNI)[member : member + 1]

        return run_one

    replaced: list[nn.Module] = [owner, *adapters]
    vars(owner)["forward"] = start
    for adapter in adapters:
        vars(adapter)["forward"] = for_member(adapter, adapter.forward)
    try:
        yield
    finally:
        for module in replaced:
            del module.forward
