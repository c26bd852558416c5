"""An exporter writes a decision down as another tool's settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from marslora.core.decision import DecisionRecord
from marslora.core.parts import ModelInfo
from marslora.core.spec import TrainingSpec


class AbstractExporter(ABC):
    """Writes one decision for one tool. The same inputs give the same bytes."""

    @abstractmethod
    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: TrainingSpec,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write the tool's settings into the folder ``output`` (made if missing) and return the files to look at.

        ``adapter_folder`` is the trained adapter; None where only ranks were searched.
        """
