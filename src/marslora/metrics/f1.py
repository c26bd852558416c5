"""Mean overlap of the words of answers with those of the expected ones: their F1 (SQuAD)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from marslora.metrics._squad import normalize_answer


def f1(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The mean F1 of the words of each answer, 0 to 1, as SQuAD's script counts (arXiv 1606.05250).

    If one of both has no words, it is 1 if the other has none either, else 0, as in SQuAD 2.0.
    """
    pairs = zip(predictions, references, strict=True)
    return sum(_compare_words(found, wanted) for found, wanted in pairs) / max(len(references), 1)


def _compare_words(found: str, wanted: str) -> float:
    found_words, wanted_words = normalize_answer(found).split(), normalize_answer(wanted).split()
    if not found_words or not wanted_words:
        return float(found_words == wanted_words)
    common = (Counter(found_words) & Counter(wanted_words)).total()
    return 2 * common / (len(found_words) + len(wanted_words))
