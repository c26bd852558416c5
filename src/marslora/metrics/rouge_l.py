"""Mean F measure of the longest common subsequence of words, ROUGE-L (package rouge-score)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from marslora.core.optional import need

_WORD = re.compile(r"[^\W_]+")


class Words:
    """Cuts a text into words in lower case: letters and digits of any script; ASCII as rouge-score itself does it."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return _WORD.findall(text.lower())


def rouge_l(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The mean ROUGE-L of the answers, 0 to 1 (Lin 2004, ACL W04-1013), by rouge-score, words not stemmed.

    Raises `MissingDependencyError` if the package is not installed.
    """
    scorer = need("rouge_score.rouge_scorer", "metrics").RougeScorer(["rougeL"], tokenizer=Words())
    pairs = zip(predictions, references, strict=True)
    total: float = sum(scorer.score(wanted, found)["rougeL"].fmeasure for found, wanted in pairs)
    return total / max(len(references), 1)
