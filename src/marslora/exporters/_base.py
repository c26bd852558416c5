"""The base class of exporters: a decision in, the settings of another tool out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from marslora.core.decision import DecisionRecord
from marslora.core.exported_run import ExportedRun
from marslora.core.parts import ModelInfo
from marslora.core.plugin_options import AbstractPlugin


class AbstractExporter(AbstractPlugin, ABC):
    """Writes a decision as files for one tool. The same inputs give the same bytes."""

    layout: ClassVar[str | None] = None
    """The layout of `marslora.data.export` in which the tool reads ``train.jsonl`` and ``validation.jsonl`` beside its
    settings; None if its settings name no rows."""

    @abstractmethod
    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: ExportedRun,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write the tool's settings into the folder ``output`` (made if missing).

        Returns the paths of the files, the main one first.

        ``adapter_folder`` is the trained adapter; None if there was no final run.
        """
