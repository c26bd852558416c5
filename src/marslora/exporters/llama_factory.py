"""A YAML file, a list of data sets and an untrained adapter for LLaMA-Factory; run in tests with its version 0.9.5."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from marslora.core.decision import DecisionRecord
from marslora.core.exported_run import ExportedRun
from marslora.core.parts import ModelInfo
from marslora.exporters._base import AbstractExporter
from marslora.exporters._init_adapter import write_init_adapter
from marslora.exporters._quantized import count_bits, quantized_note
from marslora.exporters._settings import TRAIN, VALIDATION, Settings, write

SWITCHES = {
    "vision": "freeze_vision_tower",
    "projector": "freeze_multi_modal_projector",
    "language": "freeze_language_model",
}
"""The setting of LLaMA-Factory that freezes a part, by part."""


TEMPLATES = {
    "LlavaForConditionalGeneration": "llava",
    "LlavaNextForConditionalGeneration": "llava_next",
    "Qwen2VLForConditionalGeneration": "qwen2_vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen2_vl",
    "Qwen3VLForConditionalGeneration": "qwen3_vl_nothink",
    "Qwen2AudioForConditionalGeneration": "qwen2_audio",
    "Gemma3ForConditionalGeneration": "gemma3",
    "InternVLForConditionalGeneration": "intern_vl",
    "PaliGemmaForConditionalGeneration": "paligemma",
}
"""LLaMA-Factory's name for the chat template of a model, by class; it does not use the processor's own."""
LONGEST = 131072
"""Tokens after which rows are cut, where rows of any length are trained on here."""


class LlamaFactory(AbstractExporter):
    """``llamafactory-cli train llama_factory.yaml`` continues an untrained adapter, which keeps the ranks."""

    layout = "tagged"

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: ExportedRun,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``llama_factory.yaml``, ``dataset_info.json`` and ``init_adapter/``; return their paths."""
        settings = Settings.of(decision, info, training, adapter_folder)
        adapter = write_init_adapter(settings, info, output)
        header = settings.header(
            "LLaMA-Factory 0.9.5 (tested: it reads these settings as they are meant, and takes steps with them)",
            "It has one lora_rank for all parts, so adapter_name_or_path names an untrained adapter (B = 0) with",
            "these ranks, which it continues. It writes prompts by its own template, not by the processor's.",
            "On a GPU with bfloat16 add bf16: true.",
            *settings.lost_rates,
            *settings.lost_optimizer,
            *quantized_note(settings, "It quantises towers and projector too: another base than the one searched on."),
        )
        values = {**_model(settings, output.resolve()), **_training(settings)}
        path = write(output, "llama_factory.yaml", header + yaml.safe_dump(values, sort_keys=False))
        registry = write(output, "dataset_info.json", json.dumps(_list_data_sets(info), indent=2) + "\n")
        return [path, registry, adapter / "adapter_config.json"]


def _list_data_sets(info: ModelInfo) -> dict[str, object]:
    media = [f"{each}s" for each in ("image", "audio") if each in info.modalities]
    columns = {"messages": "messages", **dict(zip(media, media, strict=True))}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    common = {"formatting": "sharegpt", "columns": columns, "tags": {**tags, "system_tag": "system"}}
    files = {"marslora_train": TRAIN, "marslora_validation": VALIDATION}
    return {name: {"file_name": file, **common} for name, file in files.items()}


def _model(settings: Settings, output: Path) -> dict[str, object]:
    switches = {key: not settings.adapts(part) for part, key in SWITCHES.items() if part in settings.ranks}
    return {
        "model_name_or_path": settings.training.model,
        "adapter_name_or_path": str(output / "init_adapter"),
        "output_dir": str(output / "trained"),
        "dataset_dir": str(output),
        "dataset": "marslora_train",
        **({"eval_dataset": "marslora_validation"} if settings.training.num_validation else {}),
        "template": TEMPLATES.get(settings.architecture, "SET_THE_TEMPLATE_OF_YOUR_MODEL"),
        "cutoff_len": settings.training.max_length or LONGEST,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        **_quantization(settings),
        **switches,
    }


def _quantization(settings: Settings) -> dict[str, object]:
    bits = count_bits(settings)
    if bits is None:
        return {}
    four = {"quantization_type": "nf4", "double_quantization": True} if bits == 4 else {}
    return {"quantization_method": "bnb", "quantization_bit": bits, **four}


def _training(settings: Settings) -> dict[str, object]:
    """Arguments of `transformers.Trainer`; recomputing activations is switched off by a setting of its own.

    The length of the stable phase is given too: otherwise LLaMA-Factory makes it a third of the steps after warm-up.
    """
    values = settings.training.trainer_arguments()
    course = values["lr_scheduler_kwargs"]
    if course:
        stable = values["max_steps"] - values["warmup_steps"] - course["num_decay_steps"]
        values["lr_scheduler_kwargs"] = {"num_stable_steps": max(0, stable), **course}
    return {
        **{name: value for name, value in values.items() if name != "gradient_checkpointing"},
        "disable_gradient_checkpointing": not values["gradient_checkpointing"],
        "report_to": "none",
    }
