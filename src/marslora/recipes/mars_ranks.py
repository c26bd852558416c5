"""LoRA with the ranks that a study of marslora chose."""

from __future__ import annotations

from pathlib import Path

from marslora.core.comparison import Recipe
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError


def mars_ranks(decision: str) -> Recipe:
    """The ranks in ``decision``, a study folder or its ``decision.json``.

    If parameters are made equal, the ranks keep their proportions.
    """
    path = Path(str(decision)).expanduser()
    path = path / "decision.json" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(
            f"`decision` must be a study folder or its decision.json, found {decision!r}: {path} does not exist."
        )
    try:
        chosen = DecisionRecord.load(path).chosen
    except ValueError as error:
        raise ConfigError(
            f"`decision` must be a study folder or its decision.json; {path} cannot be read ({error})."
        ) from None
    return Recipe(source="arXiv 2603.00720", ranks=chosen.as_dict())
