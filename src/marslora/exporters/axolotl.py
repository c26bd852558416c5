"""A YAML file for Axolotl, which has settings for ranks by part; based on the source of Axolotl 0.21, not run."""

from __future__ import annotations

from pathlib import Path

import yaml

from marslora.core.decision import DecisionRecord
from marslora.core.parts import ModelInfo
from marslora.core.spec import TrainingSpec
from marslora.exporters._base import AbstractExporter
from marslora.exporters._settings import DATA, MODEL, Settings, write


class Axolotl(AbstractExporter):
    """``axolotl train axolotl.yaml``; ``lora_rank_pattern`` carries the ranks (Axolotl 0.19 and later)."""

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: TrainingSpec,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``axolotl.yaml`` and return its path."""
        settings = Settings.of(decision, info, training, adapter_folder)
        values = {**_fixed(settings), **_lora(settings)}
        header = settings.header(
            "Axolotl 0.19 or later (settings read from 0.21, not run here)",
            "Set base_model, datasets and the chat_template of your model. To continue an adapter, set lora_model_dir.",
            *settings.lost_rates,
        )
        return [write(output, "axolotl.yaml", header + yaml.safe_dump(values, sort_keys=False))]


def _fixed(settings: Settings) -> dict[str, object]:
    training = settings.training
    return {
        "base_model": MODEL,
        "processor_type": "AutoProcessor",
        "skip_prepare_dataset": True,
        "remove_unused_columns": False,
        "sample_packing": False,
        "datasets": [{"path": DATA, "type": "chat_template", "field_messages": "messages"}],
        "adapter": "lora",
        "micro_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": training.accumulation,
        "num_epochs": training.epochs,
        "learning_rate": training.learning_rate,
        "warmup_ratio": training.warmup,
        "weight_decay": training.weight_decay,
        "gradient_checkpointing": training.gradient_checkpointing,
    }


def _lora(settings: Settings) -> dict[str, object]:
    """Axolotl takes only whole numbers, so alphas are rounded; a fractional ``alpha_over_rank`` loses digits."""
    lora = settings.lora
    values = {
        "lora_r": lora["r"],
        "lora_alpha": round(lora["lora_alpha"]),
        "lora_dropout": lora["lora_dropout"],
        "lora_target_modules": lora["target_modules"],
        "lora_rank_pattern": lora["rank_pattern"],
        "lora_alpha_pattern": {key: round(alpha) for key, alpha in lora["alpha_pattern"].items()},
    }
    variants = {f"peft_{name}": True for name, wanted in settings.training.lora_variant.items() if wanted}
    if "target_parameters" in lora:
        values["lora_target_parameters"] = lora["target_parameters"]
    if "trainable_token_indices" in lora:
        values["peft_trainable_token_indices"] = lora["trainable_token_indices"]
    return (
        values | variants | ({"lora_modules_to_save": lora["modules_to_save"]} if lora.get("modules_to_save") else {})
    )
