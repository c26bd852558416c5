"""Fits of laws that are made once: searches on the same simulated worlds fit the same points again and again.

That a fit is a function of its points and its seed is the laws' own contract, in `tests.contracts.test_laws`.
"""

import pytest

from marslora.core.decision import LawFit
from marslora.laws import AbstractLaw

_plain = AbstractLaw.fit


_known: dict[tuple[object, ...], LawFit] = {}


@pytest.fixture(autouse=True, scope="module")
def cached_fits():
    """Import it into a module of tests that search."""

    def fit(self, points, subject="", seed=0):
        key = (type(self), self.config, repr(points), subject, seed)
        if key not in _known:
            _known[key] = _plain(self, points, subject, seed)
        return _known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbstractLaw, "fit", fit)
        yield
