"""The label of the tokens that a loss leaves out."""

from __future__ import annotations

IGNORED = -100
"""The label of a token that is not part of an answer: the value that PyTorch and `transformers` ignore by default."""
