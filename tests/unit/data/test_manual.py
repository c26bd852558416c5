"""The manuals of the data and the demo say what is true: their examples run."""

import doctest

import pytest

from marslora import data, demo


@pytest.mark.parametrize("package", [data, demo])
def test_the_examples_of_the_manual_run(package):
    results = doctest.testmod(package, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 4 and results.failed == 0
