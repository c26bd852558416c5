"""The final run of a study as other tools are to train it: how, on which model, on which rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from marslora.core.data_files import MEMORY
from marslora.core.schedule import make_training_arguments, num_steps
from marslora.core.spec import TrainingSpec


class ExportedRun(TrainingSpec):
    """How a run is trained, with what an exporter has to know besides."""

    num_examples: int
    """Examples that the run sees."""
    model: str = "path/to/model"
    """Folder of the model, absolute, or its name on the hub."""
    seed: int = 0
    """Seed of initialisation and order."""
    max_length: int | None = None
    """Rows with more tokens are refused; None: no limit."""
    num_validation: int = 0
    """Validation rows."""
    quantize: Literal["nf4", "int8"] | None = None
    """How the linears of the language model are held (`marslora.core.spec.ModelSpec`)."""

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the run."""
        return num_steps(self.num_examples, self.batch_size)

    @property
    def evaluation_steps(self) -> int:
        """After how many steps it is validated; the final run has as many points, and a few before them."""
        return max(1, self.num_steps // self.evaluations)

    def trainer_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `transformers.TrainingArguments`, by which all tools are set that are built on it."""
        arguments = make_training_arguments(self, self.num_examples, self.seed)
        arguments["data_seed"] = self.seed
        if self.num_validation:
            arguments |= {
                "eval_strategy": "steps",
                "eval_steps": self.evaluation_steps,
                "per_device_eval_batch_size": arguments["per_device_train_batch_size"],
            }
        return arguments


def locate_model(path: str) -> str:
    """The absolute path of a model's folder, or its name on the hub; a placeholder for a model in memory."""
    if path.startswith(MEMORY):
        return str(ExportedRun.model_fields["model"].default)
    folder = Path(path).expanduser()
    return str(folder.resolve()) if folder.is_dir() else path
