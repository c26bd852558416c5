"""A shell command and an untrained adapter for ms-swift; based on the source of ms-swift 4.6, not run."""

from __future__ import annotations

from pathlib import Path

from marslora.core.decision import DecisionRecord
from marslora.core.parts import ModelInfo
from marslora.core.spec import TrainingSpec
from marslora.exporters._base import AbstractExporter
from marslora.exporters._init_adapter import write_init_adapter
from marslora.exporters._settings import DATA, MODEL, Settings, shell_command, write

SWITCHES = {"vision": "freeze_vit", "projector": "freeze_aligner", "language": "freeze_llm"}
"""The option of ms-swift that freezes a part, by part."""
RATES = {"vision": "vit_lr", "projector": "aligner_lr"}
"""The option of ms-swift for the learning rate of a part; that of the language model is ``learning_rate``."""


class MsSwift(AbstractExporter):
    """``sh ms_swift.sh`` continues an untrained adapter, which keeps the ranks."""

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: TrainingSpec,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``ms_swift.sh`` and ``init_adapter/``; return their paths."""
        settings = Settings.of(decision, info, training, adapter_folder)
        adapter = write_init_adapter(settings, info, output)
        header = settings.header(
            "ms-swift 4.6 (options read from its source, not run here)",
            "It has one --lora_rank for all parts, so --adapters names an untrained adapter (B = 0) with these",
            "ranks, which it continues. Set --model and --dataset, and run it in this folder.",
        )
        text = f"#!/bin/sh\n{header}set -e\n" + shell_command("swift sft", _options(settings))
        return [write(output, "ms_swift.sh", text), adapter / "adapter_config.json"]


def _options(settings: Settings) -> list[tuple[str, object]]:
    training = settings.training
    frozen = [(key, str(not settings.adapts(part)).lower()) for part, key in SWITCHES.items() if part in settings.ranks]
    rates = [(key, training.part_learning_rates[p]) for p, key in RATES.items() if p in training.part_learning_rates]
    return [
        ("model", MODEL),
        ("dataset", DATA),
        ("adapters", "init_adapter"),
        *frozen,
        ("learning_rate", training.part_learning_rates.get("language", training.learning_rate)),
        *rates,
        ("per_device_train_batch_size", settings.micro_batch_size),
        ("gradient_accumulation_steps", training.accumulation),
        ("num_train_epochs", training.epochs),
        ("warmup_ratio", training.warmup),
        ("max_grad_norm", training.clip_norm),
    ]
