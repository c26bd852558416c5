"""Decide within seconds, even without a network, whether a name on the hub can be loaded."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from huggingface_hub import constants, get_session, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from marslora.core.errors import ModelError

CONNECT_SECONDS = 2.0
"""The time within which the hub must answer, name lookup included. A convention: people accept this wait."""
REMEMBERED_SECONDS = 60.0
"""How long an answer stays valid: a study requests several files within it; afterwards the network may be back."""
_checked: dict[str, tuple[float, str]] = {}
"""By address of a hub: when it was asked last, and why it could not be reached (empty if it could). Asked again after
`REMEMBERED_SECONDS`; never emptied, since there is an entry for each address only."""


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
    why = _explain_unreachable()
    if not why:
        return name
    if isinstance(cached, str):
        return str(Path(cached).parent)
    raise ModelError(
        f"Model `{name}` is neither a folder here nor in the hub's cache ({constants.HF_HUB_CACHE}), and it cannot be "
        f"fetched: {why}. Name a folder with a config.json, or run this once where the hub can be reached."
    )


def _explain_unreachable() -> str:
    """Why the hub cannot be reached; empty if it can."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    asked, why = _checked.get(constants.ENDPOINT, (-REMEMBERED_SECONDS, ""))
    if time.monotonic() - asked >= REMEMBERED_SECONDS:
        why = _ask_hub(constants.ENDPOINT)
        _checked[constants.ENDPOINT] = (time.monotonic(), why)
    return why


def _ask_hub(endpoint: str) -> str:
    """Request the smallest answer with the hub's own client, which has the proxies and certificates of a download.

    Returns why that failed, or an empty string. It runs in a thread, since looking up an address has no time limit.
    """
    problem = [f"{endpoint} does not answer within {CONNECT_SECONDS:g} s"]

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=CONNECT_SECONDS)
        except Exception as error:  # every client has its own
            problem[0] = f"{endpoint} cannot be reached ({error or type(error).__name__})"
        else:
            problem[0] = ""

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return problem[0]
