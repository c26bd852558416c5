"""LoRA with the ranks that a study decided for (MARS)."""

from __future__ import annotations

from pathlib import Path

from marslora.core.comparison import Recipe
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError


def mars_ranks(decision: str) -> Recipe:
    """``decision`` is a study's folder or its ``decision.json``. Equal parameters keep the ranks' proportions."""
    path = Path(decision).expanduser()
    path = path / "decision.json" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"`decision` must be a study's folder or its decision.json; {path} does not exist.")
    return Recipe(source="arXiv 2603.00720", ranks=DecisionRecord.load(path).chosen.as_dict())
