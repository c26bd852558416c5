"""Names on the hub: what can be had of them, said within seconds where there is no network."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from huggingface_hub import constants, get_session, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from marslora.core.errors import ModelError

CONNECT_SECONDS = 2.0
"""How long the hub has to answer at all; names are looked up in that time too."""
REMEMBERED_SECONDS = 60.0
_checked: dict[str, tuple[float, str]] = {}
"""By address of a hub: when it was asked last, and why it could not be reached (empty: it could)."""


def resolve_hub_name(name: str) -> str:
    """What `from_pretrained` takes for a name: the name itself, or its folder in the cache where there is no network.

    Raises `ModelError` for what cannot be a name, and for one that is not in the cache while the hub cannot be reached:
    `from_pretrained` would try again and again for each of a model's files.
    """
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        raise ModelError(
            f"Model `{name}` is neither a folder here nor a name on the hub. Name a folder with a config.json, or a "
            "hub name such as `owner/model`."
        ) from None
    why = _unreachable()
    if not why:
        return name
    if isinstance(cached, str):
        return str(Path(cached).parent)
    raise ModelError(
        f"Model `{name}` is neither a folder here nor in the hub's cache ({constants.HF_HUB_CACHE}), and it cannot be "
        f"fetched: {why}. Name a folder with a config.json, or run this once where the hub can be reached."
    )


def _unreachable() -> str:
    """Why the hub cannot be reached; empty where it can."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    asked, why = _checked.get(constants.ENDPOINT, (-REMEMBERED_SECONDS, ""))
    if time.monotonic() - asked >= REMEMBERED_SECONDS:
        why = _ask(constants.ENDPOINT)
        _checked[constants.ENDPOINT] = (time.monotonic(), why)
    return why


def _ask(endpoint: str) -> str:
    """Ask for nothing but an answer, with the hub's own client: proxies and certificates are those of the download.

    In a thread, since looking up an address cannot be given a time limit.
    """
    found = [f"{endpoint} does not answer within {CONNECT_SECONDS:g} s"]

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=CONNECT_SECONDS)
        except Exception as error:  # of whichever client is installed
            found[0] = f"{endpoint} cannot be reached ({error or type(error).__name__})"
        else:
            found[0] = ""

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return found[0]
