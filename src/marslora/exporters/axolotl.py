"""A YAML file for Axolotl, which has settings for ranks by part; read in tests by the schema of Axolotl 0.19."""

from __future__ import annotations

from pathlib import Path

import yaml

from marslora.core.decision import DecisionRecord
from marslora.core.exported_run import ExportedRun
from marslora.core.parts import ModelInfo
from marslora.exporters._base import AbstractExporter
from marslora.exporters._quantized import bitsandbytes_keywords, quantized_note
from marslora.exporters._settings import TRAIN, VALIDATION, Settings, write


class Axolotl(AbstractExporter):
    """``axolotl train axolotl.yaml``; ``lora_rank_pattern`` carries the ranks (Axolotl 0.19 and later)."""

    layout = "parts"

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: ExportedRun,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``axolotl.yaml`` and return its path."""
        settings = Settings.of(decision, info, training, adapter_folder)
        values = {**_model(settings, output.resolve()), **_training(settings), **_lora(settings)}
        header = settings.header(
            "Axolotl 0.19 or later (tested: the schema of 0.19 reads these settings as meant; no step was run)",
            "chat_template may have to name that of your model. To continue an adapter, set lora_model_dir.",
            *settings.lost_rates,
            *settings.lost_optimizer,
            *quantized_note(settings, *(EIGHT_BITS if settings.training.quantize == "int8" else ())),
        )
        return [write(output, "axolotl.yaml", header + yaml.safe_dump(values, sort_keys=False))]


KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
"""Fused kernels that Axolotl switches on by itself, and that it lacks for most multimodal models, where it stops."""
EIGHT_BITS = ("In 8 bits it quantises towers and projector too: another base than the one that was searched.",)
LONGEST = 131072
"""Tokens after which rows are cut, where rows of any length are trained on here."""


def _model(settings: Settings, output: Path) -> dict[str, object]:
    run = settings.training
    common = {"ds_type": "json", "split": "train", "type": "chat_template", "field_messages": "messages"}
    validation = {"test_datasets": [{"path": str(output / VALIDATION), **common}]} if run.num_validation else {}
    return {
        "base_model": run.model,
        "processor_type": "AutoProcessor",
        "chat_template": "tokenizer_default",
        "skip_prepare_dataset": True,
        "remove_unused_columns": False,
        "sample_packing": False,
        "datasets": [{"path": str(output / TRAIN), **common}],
        **validation,
        "sequence_len": run.max_length or LONGEST,
        "train_on_inputs": False,
        "output_dir": str(output / "trained"),
        **_adapter(settings),
        **dict.fromkeys(KERNELS, False),
    }


def _adapter(settings: Settings) -> dict[str, object]:
    """The kind of adapter, which for Axolotl says how the base is held."""
    keywords = bitsandbytes_keywords(settings)
    if "load_in_4bit" in keywords:
        return {"adapter": "qlora", "load_in_4bit": keywords.pop("load_in_4bit"), "bnb_config_kwargs": keywords}
    return {"adapter": "lora", **({"load_in_8bit": True} if keywords else {})}


def _training(settings: Settings) -> dict[str, object]:
    """The arguments of `transformers.Trainer` by the names that Axolotl gives them."""
    values = settings.training.trainer_arguments()
    names = {"per_device_train_batch_size": "micro_batch_size", "lr_scheduler_type": "lr_scheduler"}
    names |= {"per_device_eval_batch_size": "eval_batch_size"}
    renamed = {
        names.get(name, name): value for name, value in values.items() if name not in ("eval_strategy", "data_seed")
    }
    return {"optimizer": "adamw_torch", "num_epochs": settings.training.epochs, **renamed}


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
