"""Decide within seconds, even without a network, whether a name on the hub can be loaded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from marslora.core.errors import ModelError
from marslora.core.hub import explain_unreachable


def resolve_hub_name(name: str) -> str:
    """What `from_pretrained` should get for a hub name: the name, or its folder in the cache if there is no network.

    Raises `ModelError` for a string that cannot be a name, and for a name that is not in the cache while the hub cannot
    be reached (`from_pretrained` would retry for each of a model's files).
    """
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        raise ModelError(
            f"Model `{name}` is neither a folder here nor a name on the hub. Name a folder with a config.json, or a "
            "hub name such as `owner/model`."
        ) from None
    why = explain_unreachable()
    if not why:
        return name
    if isinstance(cached, str):
        return str(Path(cached).parent)
    raise ModelError(
        f"Model `{name}` is neither a folder here nor in the hub's cache ({constants.HF_HUB_CACHE}), and it cannot be "
        f"fetched: {why}. Name a folder with a config.json, or run this once where the hub can be reached."
    )
