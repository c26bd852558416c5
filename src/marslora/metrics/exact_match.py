"""Share of answers that equal the expected one, but for case, punctuation and articles (SQuAD)."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.metrics._squad import normalize_answer


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The share of answers that are the expected one, 0 to 1, as SQuAD's script counts (arXiv 1606.05250)."""
    pairs = zip(predictions, references, strict=True)
    return sum(normalize_answer(found) == normalize_answer(wanted) for found, wanted in pairs) / max(len(references), 1)
