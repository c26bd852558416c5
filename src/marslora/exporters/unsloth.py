"""A Python file for Unsloth's `FastVisionModel`; based on the source of Unsloth 2026.10.9, not run."""

from __future__ import annotations

from pathlib import Path

from marslora.core.decision import DecisionRecord
from marslora.core.exported_run import ExportedRun
from marslora.core.parts import ModelInfo
from marslora.exporters._base import AbstractExporter
from marslora.exporters._quantized import count_bits, quantized_note
from marslora.exporters._settings import Settings, python_arguments, write

SWITCHES = {
    "vision": "finetune_vision_layers",
    "audio": "finetune_audio_layers",
    "language": "finetune_language_layers",
}
"""The setting of Unsloth that trains a part, by part."""


class Unsloth(AbstractExporter):
    """``from unsloth_model import model, processor``; Unsloth passes extra keywords to `LoraConfig`."""

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: ExportedRun,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``unsloth_model.py`` and return its path."""
        settings = Settings.of(decision, info, training, adapter_folder)
        header = settings.header(
            "Unsloth 2026.10.9 (read from its source, not run here)",
            "Per-part ranks are undocumented there: rank_pattern and alpha_pattern reach LoraConfig as extra keywords.",
            "Its GGUF export refuses alpha_pattern and its MLX path cannot merge rank_pattern: merge with PEFT first.",
            "Check the ranks after loading: model.peft_config['default'].rank_pattern.",
            *quantized_note(settings, "Which layers that are, Unsloth decides: the towers may be among them."),
        )
        switches = {key: settings.adapts(part) for part, key in SWITCHES.items() if part in settings.ranks}
        bits = count_bits(settings)
        text = (
            f"{header}\nfrom unsloth import FastVisionModel\n\n"
            f"model, processor = FastVisionModel.from_pretrained(\n"
            f"    {training.model!r}, load_in_4bit={bits == 4}, load_in_8bit={bits == 8}\n)\n"
            f"model = FastVisionModel.get_peft_model(\n    model,\n"
            f"{python_arguments({**switches, **settings.lora})}\n)\n"
        )
        return [write(output, "unsloth_model.py", text)]
