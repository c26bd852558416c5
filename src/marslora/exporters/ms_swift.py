"""A shell command and an untrained adapter for ms-swift; run in tests with ms-swift 4.6."""

from __future__ import annotations

import shlex
from pathlib import Path

from marslora.core.decision import DecisionRecord
from marslora.core.exported_run import ExportedRun
from marslora.core.parts import ModelInfo
from marslora.core.words import write_value
from marslora.exporters._base import AbstractExporter
from marslora.exporters._init_adapter import write_init_adapter
from marslora.exporters._quantized import count_bits, quantized_note
from marslora.exporters._settings import TRAIN, VALIDATION, Settings, shell_command, write

SWITCHES = {"vision": "freeze_vit", "projector": "freeze_aligner", "language": "freeze_llm"}
"""The option of ms-swift that freezes a part, by part."""
RATES = {"vision": "vit_lr", "projector": "aligner_lr"}
"""The option of ms-swift for the learning rate of a part; that of the language model is ``learning_rate``."""


MODEL_TYPES = {
    "LlavaForConditionalGeneration": "llava1_5_hf",
    "LlavaNextForConditionalGeneration": "llava1_6_vicuna_hf",
}
"""The option ``model_type`` for classes that ms-swift cannot tell by themselves."""


class MsSwift(AbstractExporter):
    """``sh ms_swift.sh`` continues an untrained adapter, which keeps the ranks."""

    layout = "tagged"

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: ExportedRun,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``ms_swift.sh`` and ``init_adapter/``; return their paths."""
        settings = Settings.of(decision, info, training, adapter_folder)
        adapter = write_init_adapter(settings, info, output)
        header = settings.header(
            "ms-swift 4.6 (tested: it reads these options as they are meant, and takes steps with them)",
            "It has one --lora_rank for all parts, so --adapters names an untrained adapter (B = 0) with these",
            "ranks, which it continues. It writes prompts by its own template, not by the processor's.",
            *settings.lost_optimizer,
            *quantized_note(settings, "It quantises towers and projector too: another base than the one searched on."),
        )
        command = shell_command("swift sft", _options(settings))
        text = f'#!/bin/sh\n{header}set -e\ncd "$(dirname "$0")"\n{command}'
        return [write(output, "ms_swift.sh", text), adapter / "adapter_config.json"]


def _quantization(settings: Settings) -> list[tuple[str, object]]:
    bits = count_bits(settings)
    four = [("bnb_4bit_quant_type", "nf4"), ("bnb_4bit_use_double_quant", "true")] if bits == 4 else []
    return [] if bits is None else [("quant_method", "bnb"), ("quant_bits", bits), *four]


def _options(settings: Settings) -> list[tuple[str, object]]:
    training = settings.training
    frozen = [(key, str(not settings.adapts(part)).lower()) for part, key in SWITCHES.items() if part in settings.ranks]
    rates = [(key, training.part_learning_rates[p]) for p, key in RATES.items() if p in training.part_learning_rates]
    values = training.trainer_arguments()
    values["learning_rate"] = training.part_learning_rates.get("language", training.learning_rate)
    shown = {name: shlex.quote(write_value(value)) for name, value in values.items()}
    named = MODEL_TYPES.get(settings.architecture)
    return [
        ("model", shlex.quote(training.model)),
        *([("model_type", named)] if named else []),
        ("dataset", TRAIN),
        *([("val_dataset", VALIDATION)] if training.num_validation else []),
        ("split_dataset_ratio", 0),
        *([("max_length", training.max_length)] if training.max_length else []),
        *_quantization(settings),
        ("adapters", "init_adapter"),
        ("output_dir", "trained"),
        *frozen,
        *shown.items(),
        *rates,
        ("vit_gradient_checkpointing", str(training.gradient_checkpointing).lower()),
        ("report_to", "none"),
    ]
