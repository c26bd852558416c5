"""What every combiner promises, run over the whole folder."""

import pytest

from marslora import gradients
from marslora.core import plugins
from marslora.gradients import AbstractCombiner
from marslora.testing import CombinerContract

NAMES = plugins.names(gradients)


class TestCombiner(CombinerContract):
    """Every plugin of the folder."""

    @pytest.fixture(params=NAMES)
    def kind(self, request):
        if request.param == "torchjd":
            pytest.importorskip("torchjd")
            pytest.importorskip("quadprog")
        return plugins.load(gradients, request.param, AbstractCombiner)
