"""The trained adapter of a study and the model that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marslora.core.errors import ConfigError, StudyError
from marslora.core.runs import FinalResult
from marslora.core.spec import DataSpec, ModelSpec
from marslora.store.study import Study

PEFT_CONFIG = "adapter_config.json"
"""The file that makes a folder an adapter of PEFT."""
TASKS = "tasks"
"""The folder in an adapter's own format that holds a plain LoRA folder for every task, if its tasks can be merged."""


@dataclass(frozen=True)
class TrainedStudy:
    """What a study has trained, and where the model and the rows are that it was trained with."""

    folder: Path
    model: ModelSpec
    data: DataSpec
    adapter: Path
    """The folder of the trained adapter."""
    adapter_name: str
    """How ``--adapter`` calls it."""
    result: FinalResult

    def find_plain_adapter(self, task: str | None = None) -> Path:
        """The folder that PEFT loads: the adapter's own, or that of one of its tasks.

        Raises `ConfigError` for an adapter that PEFT cannot load, and for a task that is missing, unknown or given
        where there are none.
        """
        if (self.adapter / PEFT_CONFIG).exists():
            if task is not None:
                raise ConfigError(f"`task` {task!r} is given, but the adapter `{self.adapter_name}` has no tasks.")
            return self.adapter
        tasks = {config.parent.name: config.parent for config in sorted(self.adapter.glob(f"{TASKS}/*/{PEFT_CONFIG}"))}
        if not tasks:
            raise ConfigError(
                f"The adapter `{self.adapter_name}` cannot be merged: what it adds to a weight depends on the input. "
                "Use it as it is, with `marslora.attach(model, folder)`."
            )
        if task not in tasks:
            raise ConfigError(
                f"The adapter `{self.adapter_name}` has one change of the weights for every task, so `task` must be "
                f"one of {list(tasks)}; found {task!r}."
            )
        return tasks[task]


def find_trained(
    folder: Path, *, model: str | None = None, device: str = "", trust_remote_code: bool = False
) -> TrainedStudy:
    """The trained adapter of the study in ``folder``; its model may be elsewhere now (``model``).

    ``trust_remote_code`` is what is said here, whatever the study's settings say: a study may come from somebody else.
    Raises `StudyError` for a folder that is no study, and for a study without a trained adapter.
    """
    study = Study.open(folder)
    result = study.read_full_run("final")
    adapter = study.path("final", "adapter")
    if result is None or not adapter.is_dir():
        raise StudyError(
            f"{folder} has no trained adapter yet. Run its search again without `--no-final`; it continues where it "
            "stopped."
        )
    changes: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    changes |= {"path": model} if model else {}
    changes |= {"device": device} if device else {}
    spec = study.spec
    return TrainedStudy(
        folder=folder,
        model=spec.model.model_copy(update=changes),
        data=spec.data,
        adapter=adapter,
        adapter_name=spec.training.adapter.name,
        result=result,
    )
