"""Metrics of generated answers. Each file holds one function of its name; ``--metric NAME`` lets it decide.

A metric is a function of all answers of a split and the answers that were expected, texts both. It returns one number,
of which the larger is the better::

    from collections.abc import Sequence

    def starts_alike(predictions: Sequence[str], references: Sequence[str]) -> float:
        pairs = zip(predictions, references, strict=True)
        return sum(found[:1] == wanted[:1] for found, wanted in pairs) / len(references)

One from elsewhere is named ``package.module:function``. It is imported because you name it, and not otherwise.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
