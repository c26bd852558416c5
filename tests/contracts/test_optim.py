"""What every optimizer promises, run over the whole folder."""

import pytest

from marslora import optim
from marslora.core import plugins
from marslora.optim import AbstractOptimizer
from marslora.testing import OptimizerContract


class TestOptimizer(OptimizerContract):
    """Every plugin of the folder."""

    @pytest.fixture(params=plugins.names(optim))
    def kind(self, request):
        return plugins.load(optim, request.param, AbstractOptimizer)
