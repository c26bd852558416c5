"""Shared by all exporters: the chosen ranks and learning rates as settings, and a header that explains the file."""

from __future__ import annotations

import pprint
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marslora.core.decision import DecisionRecord
from marslora.core.exported_run import ExportedRun
from marslora.core.parts import LANGUAGE, ModelInfo
from marslora.core.patterns import lora_config_dict

TRAIN, VALIDATION = "train.jsonl", "validation.jsonl"
"""The files of rows beside a tool's settings."""


@dataclass(frozen=True)
class Settings:
    """A decision in terms that other tools understand."""

    architecture: str
    ranks: dict[str, int]
    """Rank of every part; parts that are trained whole have 0 here and are listed in ``full``."""
    full: tuple[str, ...]
    module_ranks: dict[str, int]
    outside_language: tuple[str, ...]
    """Paths of the modules of all parts but the language model."""
    lora: dict[str, Any]
    """Keyword arguments of `peft.LoraConfig`."""
    training: ExportedRun
    """How to train, with the chosen learning rates."""
    is_rate_chosen: bool
    """Whether the learning rate was searched."""
    adapter_folder: Path | None
    """The trained adapter; None if there was no final run."""

    @classmethod
    def of(
        cls, decision: DecisionRecord, info: ModelInfo, training: ExportedRun, adapter_folder: Path | None
    ) -> Settings:
        """Build the settings of a decision."""
        lora_only = decision.chosen.replace(**{part: 0 for part in training.full if part in decision.chosen.parts})
        module_ranks = info.module_ranks(lora_only)
        full_modules = info.full_modules(training.full)
        lora = lora_config_dict(
            module_ranks,
            training.alpha_over_rank,
            full_modules,
            training.dropout,
            stacked=info.stacked(lora_only),
            tokens=info.token_indices(training.trainable_token_indices),
            **training.lora_variant,
        )
        return cls(
            architecture=info.architecture,
            ranks=lora_only.as_dict(),
            full=tuple(part for part in training.full if part not in info.unreached),
            module_ranks=module_ranks,
            outside_language=tuple(path for part in info.parts if part.name != LANGUAGE for path in part.paths),
            lora=lora,
            training=training.model_copy(update=_choose_rates(decision, training)),
            is_rate_chosen=decision.learning_rate is not None,
            adapter_folder=None if adapter_folder is None else Path(adapter_folder).absolute(),  # from any folder
        )

    @property
    def largest_rank(self) -> int:
        """The largest rank of any module, 0 if nothing is adapted."""
        return max(self.module_ranks.values(), default=0)

    def adapts(self, part: str) -> bool:
        """Whether any parameter of ``part`` is trained."""
        return self.ranks.get(part, 0) > 0 or part in self.full

    def header(self, tool: str, *notes: str) -> str:
        """Return comment lines: what was chosen, the tool and its version, whether this was run with it, and notes."""
        ranks = [f"{part} {'whole' if part in self.full else rank}" for part, rank in self.ranks.items()]
        lines = [f"LoRA ranks that marslora chose for {self.architecture}: {', '.join(ranks)}."]
        if self.is_rate_chosen:
            own = (f", {part} {rate:.2g}" for part, rate in self.training.part_learning_rates.items())
            lines.append(f"The learning rate that it chose with them: {self.training.learning_rate:.2g}{''.join(own)}.")
        lines += [f"For {tool}.", *notes]
        if self.adapter_folder is not None:
            lines.append(f"A trained adapter with these ranks: {self.adapter_folder}")
        return "".join(f"# {line}\n" for line in lines)

    @property
    def lost_rates(self) -> list[str]:
        """A note for tools that have one learning rate for all parts; none if one is enough."""
        rates = self.training.part_learning_rates
        shown = ", ".join(f"{part} {rate:.2g}" for part, rate in rates.items())
        return [f"It has one learning rate, so those of single parts are left out: {shown}."] if rates else []

    @property
    def lost_optimizer(self) -> list[str]:
        """A note for tools without the optimizer that was chosen; none for AdamW."""
        name = self.training.optimizer.name
        return [] if name == "adamw" else [f"It has no optimizer `{name}`, so it trains with AdamW: another run."]

    @property
    def micro_batch_size(self) -> int:
        """Examples in one micro-batch on one device."""
        return max(1, self.training.batch_size // self.training.accumulation)


def _choose_rates(decision: DecisionRecord, training: ExportedRun) -> dict[str, Any]:
    chosen = decision.setting.apply_to(training)
    return {"learning_rate": chosen.learning_rate, "part_learning_rates": chosen.part_learning_rates}


def python_arguments(values: Mapping[str, Any], indent: str = "    ") -> str:
    """Return ``name=value,`` lines for a Python call."""
    lines = (f"{name}={pprint.pformat(value, width=100, sort_dicts=False)}," for name, value in values.items())
    return "\n".join(indent + line.replace("\n", "\n" + indent) for line in lines)


def shell_command(command: str, options: Iterable[tuple[str, object]]) -> str:
    """Return a shell command with one ``--option value`` a line; an option whose value is None is a bare flag."""
    lines = [command, *(f"--{name}" if value is None else f"--{name} {value}" for name, value in options)]
    return " \\\n  ".join(lines) + "\n"


def write(folder: Path, name: str, text: str) -> Path:
    """Write ``text`` to ``folder/name`` and return that path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path
