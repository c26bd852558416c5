"""The shell command that serves the trained adapter with vLLM; read from vLLM 0.33, not run here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from marslora.core.decision import DecisionRecord
from marslora.core.parts import ModelInfo
from marslora.core.spec import TrainingSpec
from marslora.exporters._base import AbstractExporter
from marslora.exporters._settings import MODEL, Settings, shell_command, write

CONFIG = "adapter_config.json"
ALLOWED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def max_lora_rank(largest_rank: int) -> int | None:
    """The smallest ``--max-lora-rank`` that vLLM accepts and that holds ``largest_rank``; None where there is none."""
    return next((allowed for allowed in ALLOWED_RANKS if allowed >= largest_rank), None)


class Vllm(AbstractExporter):
    """Writes a script for ``sh vllm_serve.sh``."""

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: TrainingSpec,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``vllm_serve.sh`` and return its path."""
        settings = Settings.of(decision, info, training, adapter_folder)
        header = settings.header("vLLM 0.33 (options read from its source, not run here)", *_notes(settings))
        command = shell_command(f"vllm serve {MODEL}", _options(settings))
        return [write(output, "vllm_serve.sh", f"#!/bin/sh\n{header}set -e\n{command}")]


def _adapters(settings: Settings) -> dict[str, Path | None]:
    """Folders of plain LoRA by the name to ask for; none where the trained adapter is of a kind that vLLM has not."""
    folder = Path(settings.adapter_folder) if settings.adapter_folder is not None else None
    if folder is None or not folder.is_dir() or (folder / CONFIG).exists():
        return {"marslora": folder}
    return {config.parent.name: config.parent for config in sorted(folder.glob(f"tasks/*/{CONFIG}"))}


def _largest_rank(settings: Settings) -> int:
    """Of what was trained, where it is there: some adapters choose ranks of their own."""
    found = []
    for folder in _adapters(settings).values():
        if folder is not None and (folder / CONFIG).exists():
            config = json.loads((folder / CONFIG).read_text())
            found += [config["r"], *config["rank_pattern"].values()]
    return max(found, default=settings.largest_rank)


def _served_merged(settings: Settings) -> bool:
    """Whether vLLM cannot hold this adapter: a part trained whole, DoRA, or a rank above its largest."""
    dora = settings.lora.get("use_dora", False)
    return bool(settings.full) or dora or max_lora_rank(_largest_rank(settings)) is None


def _notes(settings: Settings) -> list[str]:
    if not _adapters(settings):
        return [f"vLLM has no adapter like `{settings.training.adapter.name}`, nor can it be merged: run it in Python,",
                "with marslora.attach(model, adapter). What is below serves the model without it."]  # fmt: skip
    if _served_merged(settings):
        return ["vLLM cannot hold this adapter (a part trained whole, DoRA, a rank above 512): serve the merged model,",
                "PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)."]  # fmt: skip
    notes = ["Older versions ignore rank_pattern and use one alpha / r; marslora keeps that the same in every part."]
    if _adapts_towers(settings):
        notes.append("LoRA outside the language model needs a model class that supports it (vLLM issue 31479).")
    return notes


def _adapts_towers(settings: Settings) -> bool:
    return any(rank > 0 for part, rank in settings.ranks.items() if part != "language")


def _options(settings: Settings) -> list[tuple[str, object]]:
    adapters = _adapters(settings)
    if not adapters or _served_merged(settings):
        return []
    named = " ".join(shlex.quote(f"{name}={folder or 'path/to/adapter'}") for name, folder in adapters.items())
    flags = [("enable-tower-connector-lora", None)] if _adapts_towers(settings) else []
    return [
        ("enable-lora", None),
        ("max-lora-rank", max_lora_rank(_largest_rank(settings))),
        ("lora-modules", named),
        *flags,
    ]
