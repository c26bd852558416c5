"""What every exporter promises: readable output that names every part's rank, the same each time."""

import pytest

from marslora import exporters
from marslora.core import plugins
from marslora.exporters import AbstractExporter
from marslora.testing import ExporterContract


class TestExporter(ExporterContract):
    """Every plugin of the folder."""

    @pytest.fixture(params=plugins.names(exporters))
    def exporter(self, request):
        return plugins.load(exporters, request.param, AbstractExporter)()
