"""What every recipe promises, run over the whole folder."""

import pytest

from marslora import recipes
from marslora.core import plugins
from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate, DecisionRecord
from marslora.testing import RecipeContract


class TestRecipe(RecipeContract):
    """Every plugin of the folder."""

    @pytest.fixture(params=plugins.names(recipes))
    def name(self, request):
        return request.param

    @pytest.fixture
    def options(self, name, tmp_path):
        """Only `mars_ranks` needs an option: a study's decision."""
        if name != "mars_ranks":
            return {}
        chosen = Allocation.of(vision=64, projector=4, language=16)
        candidate = Candidate(allocation=chosen, status="chosen", reason="a test")
        found = DecisionRecord(strategy="mars", chosen=chosen, verdict="clear", summary="", candidates=(candidate,))
        (tmp_path / "decision.json").write_text(found.to_json())
        return {"decision": str(tmp_path)}
