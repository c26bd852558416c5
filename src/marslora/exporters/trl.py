"""A Python script for TRL's `SFTTrainer`; run in this project's tests with TRL 1.16."""

from __future__ import annotations

from pathlib import Path

from marslora.core.decision import DecisionRecord
from marslora.core.parts import ModelInfo
from marslora.core.spec import TrainingSpec
from marslora.exporters._base import AbstractExporter
from marslora.exporters._settings import DATA, MODEL, Settings, python_arguments, write

SCRIPT = '''{header}
import sys
from pathlib import Path

import torch
from datasets import Image, List, load_dataset
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

lora_config = LoraConfig(
{lora}
)


def split_answer(row, folder):
    """The last message is the answer, the only text in the loss. Image paths are relative to the data's folder."""
    images = [str(folder / image) for image in row["images"]]
    return {{"prompt": row["messages"][:-1], "completion": row["messages"][-1:], "images": images}}


def main(model_path="{model}", data_path="{data}", output_folder="sft", *, max_steps=-1):
    """Fine-tune on rows with `messages` and `images`; the adapter is saved in `output_folder`."""
    model = AutoModelForImageTextToText.from_pretrained(model_path)
    rows = load_dataset("json", data_files=data_path, split="train")
    rows = rows.map(split_answer, fn_kwargs={{"folder": Path(data_path).parent}}, remove_columns="messages")
    rows = rows.cast_column("images", List(Image()))
    arguments = SFTConfig(
        output_dir=output_folder,
        max_steps=max_steps,
{arguments}
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        max_length=None,  # no truncation, which could remove image tokens
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=AutoProcessor.from_pretrained(model_path),
        peft_config=lora_config,
    )
    trainer.train()
    trainer.save_model(output_folder)


if __name__ == "__main__":
    main(*sys.argv[1:4])
'''


class Trl(AbstractExporter):
    """``python sft.py MODEL train.jsonl OUTPUT`` trains the chosen ranks from the start."""

    def export(
        self,
        decision: DecisionRecord,
        info: ModelInfo,
        training: TrainingSpec,
        adapter_folder: Path | None,
        output: Path,
    ) -> list[Path]:
        """Write ``sft.py`` and return its path."""
        settings = Settings.of(decision, info, training, adapter_folder)
        notes = ["The TRL command line has no setting for per-part ranks, so this is a script.", *settings.lost_rates]
        text = SCRIPT.format(
            header=settings.header("TRL 1.16 (tested)", *notes),
            lora=python_arguments(settings.lora),
            arguments=python_arguments(_arguments(settings), " " * 8),
            model=MODEL,
            data=DATA,
        )
        return [write(output, "sft.py", text)]


def _arguments(settings: Settings) -> dict[str, object]:
    """Arguments of `SFTConfig`: warm-up, then a constant rate (a decay would need the number of steps)."""
    training = settings.training
    return {
        "num_train_epochs": training.epochs,
        "per_device_train_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": training.accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": training.warmup,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.clip_norm,
        "gradient_checkpointing": training.gradient_checkpointing,
        "report_to": "none",
    }
