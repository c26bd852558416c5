"""TorchJD by name, and without it."""

import sys

import numpy as np
import pytest

from marslora.core.errors import ConfigError, MissingDependencyError
from marslora.gradients import Block
from marslora.gradients.mgda import MGDA
from marslora.gradients.torchjd import TorchJD


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'marslora\[pareto\]'"):
        TorchJD()


def test_unknown_aggregators_are_refused():
    pytest.importorskip("torchjd")
    with pytest.raises(ConfigError, match=r"`aggregator` must be one of \['AlignedMTL'.*found 'Nonsense'"):
        TorchJD(aggregator="Nonsense")


def test_settings_reach_the_aggregator():
    pytest.importorskip("torchjd")
    gram_KK = np.array([[4.0, -1.0], [-1.0, 1.0]])
    block = Block("all", ("a", "b"), gram_KK[None], np.ones(2))
    answer = TorchJD(aggregator="MGDA", settings={"max_iters": 500, "epsilon": 1e-9}).weigh(block)
    np.testing.assert_allclose(answer.weights, MGDA().weigh(block).weights, atol=1e-2)
    assert answer.case == "MGDA"
