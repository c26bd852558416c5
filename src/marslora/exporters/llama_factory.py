"""A YAML file and an untrained adapter for LLaMA-Factory; based on the source of LLaMA-Factory 0.9.5, not run."""

from __future__ import annotations

from pathlib import Path

import yaml

from marslora.core.decision import DecisionRecord
from marslora.core.parts import ModelInfo
from marslora.core.spec import TrainingSpec
from marslora.exporters._base import AbstractExporter
from marslora.exporters._init_adapter import write_init_adapter
from marslora.exporters._settings import MODEL, Settings, write

SWITCHES = {
    "vision": "freeze_vision_tower",
    "projector": "freeze_multi_modal_projector",
    "language": "freeze_language_model",
}
"""The setting of LLaMA-Factory that freezes a part, by part."""


class LlamaFactory(AbstractExporter):
    """``llamafactory-cli train llama_factory.yaml`` continues an untrained adapter, which keeps the ranks."""

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: TrainingSpec,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``llama_factory.yaml`` and ``init_adapter/``; return their paths."""
        settings = Settings.of(decision, info, training, adapter_folder)
        adapter = write_init_adapter(settings, info, output)
        header = settings.header(
            "LLaMA-Factory 0.9.5 (settings read from its source, not run here)",
            "It has one lora_rank for all parts, so adapter_name_or_path names an untrained adapter (B = 0) with",
            "these ranks, which it continues. Set model_name_or_path, dataset and template.",
            *settings.lost_rates,
        )
        values = {**_model(settings), **_training(settings), "output_dir": "saves/marslora"}
        path = write(output, "llama_factory.yaml", header + yaml.safe_dump(values, sort_keys=False))
        return [path, adapter / "adapter_config.json"]


def _model(settings: Settings) -> dict[str, object]:
    switches = {key: not settings.adapts(part) for part, key in SWITCHES.items() if part in settings.ranks}
    return {
        "model_name_or_path": MODEL,
        "adapter_name_or_path": "init_adapter",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        **switches,
    }


def _training(settings: Settings) -> dict[str, object]:
    training = settings.training
    return {
        "dataset": "my_dataset",
        "template": "my_template",
        "per_device_train_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": training.accumulation,
        "learning_rate": training.learning_rate,
        "num_train_epochs": training.epochs,
        "warmup_ratio": training.warmup,
        "lr_scheduler_type": "constant_with_warmup",
        "max_grad_norm": training.clip_norm,
    }
