"""A Python script for TRL's `SFTTrainer`; run in this project's tests with TRL 1.16."""

from __future__ import annotations

from pathlib import Path

from marslora.core.decision import DecisionRecord
from marslora.core.exported_run import ExportedRun
from marslora.core.parts import ModelInfo
from marslora.exporters._base import AbstractExporter
from marslora.exporters._quantized import bitsandbytes_keywords, quantized_note
from marslora.exporters._settings import TRAIN, VALIDATION, Settings, python_arguments, write

SCRIPT = '''{header}
import sys
from pathlib import Path

import torch
from datasets import Image, List, load_dataset
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor{imports}
from trl import SFTConfig, SFTTrainer

lora_config = LoraConfig(
{lora}
)


HERE = Path(__file__).parent


def load_rows(name):
    """Rows with a `prompt`, the answer as `completion`, which alone is in the loss, and the paths of `images`."""
    rows = load_dataset("json", data_files=str(HERE / name), split="train")
    return rows.cast_column("images", List(Image()))


def main(model_path={model!r}, output_folder=str(HERE / "trained"), **changes):
    """Fine-tune; the adapter is saved in `output_folder`. Keywords override arguments of `SFTConfig`."""
    model = AutoModelForImageTextToText.from_pretrained(model_path{quantization})
    arguments = {{
{arguments}
    }}
    arguments = SFTConfig(
        output_dir=output_folder,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        max_length=None,  # no truncation, which could remove image tokens
        **{{**arguments, **changes}},
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=load_rows("{train}"),
        eval_dataset={validation},
        processing_class=AutoProcessor.from_pretrained(model_path),
        peft_config=lora_config,
    )
    trainer.train()
    trainer.save_model(output_folder)
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:3])
'''
COMPUTE = "torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32"
"""The dtype in which the script multiplies numbers of 4 bits: as it trains."""


class Trl(AbstractExporter):
    """``python sft.py [MODEL [OUTPUT]]`` trains the chosen ranks from the start, on the rows beside the script."""

    layout = "prompt"

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: ExportedRun,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``sft.py`` and return its path."""
        settings = Settings.of(decision, info, training, adapter_folder)
        notes = ["The TRL command line has no setting for per-part ranks, so this is a script.", *settings.lost_rates]
        notes += ["Of a conversation the last answer is trained.", *settings.lost_optimizer, *quantized_note(settings)]
        validation = f'load_rows("{VALIDATION}")' if training.num_validation else None
        text = SCRIPT.format(
            header=settings.header("TRL 1.16 (tested)", *notes),
            lora=python_arguments(settings.lora),
            arguments="".join(
                f"        {name!r}: {value!r},\n" for name, value in _arguments(settings).items()
            ).rstrip(),
            model=training.model,
            **_quantization(settings),
            train=TRAIN,
            validation=validation,
        )
        return [write(output, "sft.py", text)]


def _quantization(settings: Settings) -> dict[str, str]:
    """What the script imports and passes to load the base in 4 or 8 bits; empty texts if it does not."""
    keywords = bitsandbytes_keywords(settings)
    if not keywords:
        return {"imports": "", "quantization": ""}
    arguments = python_arguments(keywords, " " * 12)
    compute = f"\n{' ' * 12}bnb_4bit_compute_dtype={COMPUTE}," if "load_in_4bit" in keywords else ""
    config = f"BitsAndBytesConfig(\n{arguments}{compute}\n        )"
    return {"imports": ", BitsAndBytesConfig", "quantization": f",\n        quantization_config={config},\n    "}


def _arguments(settings: Settings) -> dict[str, object]:
    """Arguments of `SFTConfig`, which are those of `transformers.TrainingArguments`."""
    return {**settings.training.trainer_arguments(), "report_to": "none"}
