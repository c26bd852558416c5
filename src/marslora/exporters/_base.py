"""The base class of exporters: a decision in, the settings of another tool out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from marslora.core.decision import DecisionRecord
from marslora.core.parts import ModelInfo
from marslora.core.plugin_options import AbstractPlugin
from marslora.core.spec import TrainingSpec


class AbstractExporter(AbstractPlugin, ABC):
    """Writes a decision as files for one tool. The same inputs give the same bytes."""

    @abstractmethod
    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: TrainingSpec,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write the tool's settings into the folder ``output`` (made if missing).

        Returns the paths of the files, the main one first.

        ``adapter_folder`` is the trained adapter; None if there was no final run.
        """
