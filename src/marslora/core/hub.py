"""Whether the hub can be reached, said within seconds: its own clients retry for a minute."""

from __future__ import annotations

import threading
import time

from huggingface_hub import constants, get_session

CONNECT_SECONDS = 2.0
"""The time within which the hub must answer, name lookup included. A convention: people accept this wait."""
REMEMBERED_SECONDS = 60.0
"""How long an answer stays valid: a study requests several files within it; afterwards the network may be back."""
_checked: dict[str, tuple[float, str]] = {}
"""By address of a hub: when it was asked last, and why it could not be reached (empty if it could). Asked again after
`REMEMBERED_SECONDS`; never emptied, since there is an entry for each address only."""


def explain_unreachable() -> str:
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
            get_session().head(endpoint, timeout=2 * CONNECT_SECONDS)  # the wait below ends first
        except Exception as error:  # every client has its own
            problem[0] = f"{endpoint} cannot be reached ({error or type(error).__name__})"
        else:
            problem[0] = ""

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return problem[0]
