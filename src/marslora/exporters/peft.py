"""A Python file with the `peft.LoraConfig`; run in this project's tests with PEFT 0.21."""

from __future__ import annotations

from pathlib import Path

from marslora.core.decision import DecisionRecord
from marslora.core.exported_run import ExportedRun
from marslora.core.parts import ModelInfo
from marslora.exporters._base import AbstractExporter
from marslora.exporters._quantized import bitsandbytes_keywords, quantized_note
from marslora.exporters._settings import Settings, python_arguments, write


def _describe_base(settings: Settings) -> list[str]:
    keywords = ", ".join(f"{name}={value!r}" for name, value in bitsandbytes_keywords(settings).items())
    return quantized_note(settings, f"Load it with quantization_config=BitsAndBytesConfig({keywords}).")


class Peft(AbstractExporter):
    """For ``from lora_config import lora_config`` in any script that uses PEFT."""

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: ExportedRun,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``lora_config.py`` and return its path."""
        settings = Settings.of(decision, info, training, adapter_folder)
        header = settings.header(
            "PEFT 0.21 (tested)",
            "No module matches two of the patterns, so their order does not matter.",
            *_describe_base(settings),
        )
        arguments = python_arguments(settings.lora)
        text = f"{header}\nfrom peft import LoraConfig\n\nlora_config = LoraConfig(\n{arguments}\n)\n"
        return [write(output, "lora_config.py", text)]
