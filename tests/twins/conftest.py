"""Fixtures of the folder: packs on a tiny model."""

from tests.helpers.packs import pack, world  # noqa: F401
