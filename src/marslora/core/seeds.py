"""Derive independent random streams from one seed by name, so that adding a member does not change what others draw."""

from __future__ import annotations

import hashlib

LARGEST_SEED = 2**32 - 1
"""The largest seed that numpy's generators take, which `transformers` seeds too."""


def derive(seed: int, *names: object) -> int:
    """Derive from ``seed`` the 63-bit seed of the stream called ``names``."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
