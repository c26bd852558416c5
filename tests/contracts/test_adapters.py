"""What every packed adapter promises, run over the whole folder, with its variants, and over one from elsewhere."""

import pytest

from marslora import adapters
from marslora.adapters import AbstractAdapter
from marslora.core import plugins
from marslora.core.spec import PluginSpec
from marslora.testing import AdapterContract

VARIANTS = [*plugins.names(adapters), "lora:use_dora=true", "tests.helpers.outside_adapter:GainedLora"]


class TestAdapter(AdapterContract):
    """Every plugin of the folder, DoRA, and an adapter from elsewhere."""

    @pytest.fixture(params=VARIANTS)
    def spec(self, request):
        return PluginSpec.parse(request.param)

    @pytest.fixture
    def kind(self, spec):
        return plugins.load(adapters, spec.name, AbstractAdapter)

    @pytest.fixture
    def options(self, spec):
        return spec.options


@pytest.mark.parametrize("name", plugins.names(adapters))
def test_it_is_described_in_a_short_line(name):
    assert len(plugins.summary(adapters, name)) < 120
