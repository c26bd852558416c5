"""LoRA with the ranks and the learning rate that a study of marslora chose."""

from __future__ import annotations

from pathlib import Path

from marslora.core.comparison import Recipe
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError


def mars_ranks(decision: str) -> Recipe:
    """The ranks and learning rates in ``decision``, a study folder or its ``decision.json``.

    If parameters are made equal, the ranks keep their proportions. A learning rate that the study did not search is
    left to the comparison.
    """
    path = Path(str(decision)).expanduser()
    path = path / "decision.json" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(
            f"`decision` must be a study folder or its decision.json, found {decision!r}: {path} does not exist."
        )
    try:
        found = DecisionRecord.load(path)
    except ValueError as error:
        raise ConfigError(
            f"`decision` must be a study folder or its decision.json; {path} cannot be read ({error})."
        ) from None
    rate = found.learning_rate
    return Recipe(
        source="arXiv 2603.00720",
        ranks=found.chosen.as_dict(),
        training={} if rate is None else {"learning_rate": rate},
        rate_factors={} if rate is None else {part: own / rate for part, own in found.part_learning_rates.items()},
    )
