"""The shell command that serves the trained adapter with vLLM; based on the source of vLLM 0.33, not run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from marslora.core.decision import DecisionRecord
from marslora.core.exported_run import ExportedRun
from marslora.core.parts import ModelInfo
from marslora.exporters._base import AbstractExporter
from marslora.exporters._quantized import quantized_note
from marslora.exporters._settings import Settings, shell_command, write

CONFIG = "adapter_config.json"
"""PEFT's name for the settings in an adapter folder."""
ALLOWED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM 0.33 accepts for ``--max-lora-rank``."""


def find_max_lora_rank(largest_rank: int) -> int | None:
    """Return the smallest ``--max-lora-rank`` of vLLM that is at least ``largest_rank``; None if there is none."""
    return next((allowed for allowed in ALLOWED_RANKS if allowed >= largest_rank), None)


class Vllm(AbstractExporter):
    """Writes ``vllm_serve.sh``, which serves the model with the adapter."""

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: ExportedRun,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``vllm_serve.sh`` and return its path."""
        settings = Settings.of(decision, info, training, adapter_folder)
        header = settings.header("vLLM 0.33 (options read from its source, not run here)", *_notes(settings))
        command = shell_command(f"vllm serve {shlex.quote(training.model)}", _options(settings))
        return [write(output, "vllm_serve.sh", f"#!/bin/sh\n{header}set -e\n{command}")]


def _adapters(settings: Settings) -> dict[str, Path | None]:
    """Folders of plain LoRA by the name that requests use; empty if vLLM cannot load this type of adapter."""
    folder = Path(settings.adapter_folder) if settings.adapter_folder is not None else None
    if folder is None or not folder.is_dir() or (folder / CONFIG).exists():
        return {"marslora": folder}
    return {config.parent.name: config.parent for config in sorted(folder.glob(f"tasks/*/{CONFIG}"))}


def _largest_rank(settings: Settings) -> int:
    """The largest trained rank if the adapter exists (some adapters choose their own ranks), else the chosen one."""
    ranks = []
    for folder in _adapters(settings).values():
        if folder is not None and (folder / CONFIG).exists():
            config = json.loads((folder / CONFIG).read_text())
            ranks += [config["r"], *config["rank_pattern"].values()]
    return max(ranks, default=settings.largest_rank)


def _must_be_merged(settings: Settings) -> bool:
    """Whether vLLM cannot load this adapter: a part or tokens trained whole, DoRA, or a rank above its largest."""
    dora = settings.lora.get("use_dora", False)
    new_tokens = "trainable_token_indices" in settings.lora
    return bool(settings.full) or dora or new_tokens or find_max_lora_rank(_largest_rank(settings)) is None


def _notes(settings: Settings) -> list[str]:
    served = "Here the base is served as it was before it was quantised, which is another model: `marslora merge`"
    return [*_loading_notes(settings), *quantized_note(settings, served, "writes the one that was trained.")]


def _loading_notes(settings: Settings) -> list[str]:
    if not _adapters(settings):
        return [f"vLLM cannot load the adapter `{settings.training.adapter.name}`, nor can it be merged. In Python use",
                "marslora.attach(model, adapter). The command below serves the model without the adapter."]  # fmt: skip
    if _must_be_merged(settings):
        return ["vLLM cannot load this adapter (a part or tokens trained whole, DoRA, a rank above 512). Merge it:",
                "PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)."]  # fmt: skip
    notes = ["Older versions of vLLM ignore rank_pattern and use one alpha / r, which is the same in every part here."]
    if _adapts_towers(settings):
        notes.append("LoRA outside the language model needs a model class that supports it (vLLM issue 31479).")
    return notes


def _adapts_towers(settings: Settings) -> bool:
    return any(rank > 0 for part, rank in settings.ranks.items() if part != "language")


def _options(settings: Settings) -> list[tuple[str, object]]:
    adapters = _adapters(settings)
    if not adapters or _must_be_merged(settings):
        return []
    named = " ".join(shlex.quote(f"{name}={folder or 'path/to/adapter'}") for name, folder in adapters.items())
    flags = [("enable-tower-connector-lora", None)] if _adapts_towers(settings) else []
    return [
        ("enable-lora", None),
        ("max-lora-rank", find_max_lora_rank(_largest_rank(settings))),
        ("lora-modules", named),
        *flags,
    ]
