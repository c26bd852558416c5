"""Write docs/coverage.md: the parts that discovery finds in every multimodal architecture of transformers.

Run: python scripts/coverage_table.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

from marslora.core.parts import ModelInfo
from marslora.models.discovery import discover

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
COLUMNS = ("vision", "audio", "projector", "language")


def survey() -> tuple[dict[str, ModelInfo], dict[str, str]]:
    """(info by model type, reason by model type that a default configuration cannot build)."""
    transformers.logging.set_verbosity_error()
    found, left_out = {}, {}
    for model_type, names in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.items():
        model_class = getattr(transformers, names if isinstance(names, str) else names[0])
        try:
            with torch.device("meta"):
                model = model_class(CONFIG_MAPPING[model_type]())
        except Exception as error:
            left_out[model_type] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:80]}"
            continue
        found[model_type] = discover(model)
    return found, left_out


def page(found: dict[str, ModelInfo], left_out: dict[str, str]) -> str:
    """The table as Markdown."""
    lines = [
        "# Which architectures are covered",
        "",
        f"Made by `python scripts/coverage_table.py` with transformers {transformers.__version__}: every architecture",
        "of `AutoModelForMultimodalLM`, built from its default configuration without weights. Numbers are adaptable",
        "linear layers; *left alone* counts heads, generators and whatever belongs to no part.",
        "",
        "| architecture | " + " | ".join(COLUMNS) + " | left alone | note |",
        "|---|" + "---:|" * (len(COLUMNS) + 1) + "---|",
        *(row(name, info) for name, info in sorted(found.items())),
        "",
        "## Not buildable from a default configuration",
        "",
        "These need a real configuration (`marslora inspect MODEL` then works as for the others) or a further package.",
        "",
        *(f"- `{name}`: {reason}" for name, reason in sorted(left_out.items())),
        "",
    ]
    return "\n".join(lines)


def row(name: str, info: ModelInfo) -> str:
    """One line of the table."""
    counts = {part.name: len(part.linears) for part in info.parts}
    cells = [str(counts.get(column, "")) for column in COLUMNS]
    note = " ".join(info.warnings) or ("reads text only" if info.modalities == ("text",) else "")
    return f"| {name} | {' | '.join(cells)} | {len(info.unlabelled)} | {note.replace('|', '/')} |"


def main() -> None:
    """Write the page and say how much is covered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE, help="where the page is written")
    out = parser.parse_args().out
    found, left_out = survey()
    out.write_text(page(found, left_out))
    clean = sum(not info.warnings for info in found.values())
    sys.stdout.write(f"{out}: {len(found)} architectures, {clean} without a note, {len(left_out)} not buildable\n")


if __name__ == "__main__":
    main()
