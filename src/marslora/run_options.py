"""How a study or a comparison is run: what may differ when the same command continues it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from marslora.core.budget import Limit
from marslora.core.errors import ConfigError
from marslora.core.options import RUNNING, Option, OptionRecord
from marslora.core.training import PluginSpec, read_names
from marslora.executors import AbstractExecutor


def _read_executor(value: Any) -> Any:
    return value if value is None or isinstance(value, AbstractExecutor) else PluginSpec.model_validate(value)


class ExecutorOptions(OptionRecord):
    """Where the work is done."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    workers: Annotated[
        int,
        Field(ge=0),
        Option(RUNNING, other_names=("gpus", "num_gpus", "num_workers", "nproc_per_node", "num_processes")),
    ] = 0
    """Runs that are trained at a time, each in a process of its own, on the GPUs in turn; 0 trains in this process."""
    executor: Annotated[
        PluginSpec | AbstractExecutor | None,
        BeforeValidator(_read_executor),
        Option(RUNNING, metavar="EXECUTOR", type=str | AbstractExecutor),
    ] = None
    """What the work is handed to: an executor's name (see `marslora list`) or package.module:Class. In Python also an
    executor. Default: inline, or processes if there are workers."""

    def make_executor(self) -> AbstractExecutor:
        """The executor; ``workers`` become its option ``num_workers`` if there are any.

        Raises `ConfigError` for an executor that does not exist or does not take the options.
        """
        from marslora import executors
        from marslora.core import plugins

        if isinstance(self.executor, AbstractExecutor):
            if self.workers:
                raise ConfigError(f"`workers` must be left out if an executor is given, found {self.workers}.")
            return self.executor
        spec = self.executor or PluginSpec(name="processes" if self.workers else "inline")
        executor = plugins.load(executors, spec.name, AbstractExecutor)
        if self.workers and (
            spec.options.get("num_workers") or "num_workers" not in executor.Config.__dataclass_fields__
        ):
            raise ConfigError(
                "`workers` needs an executor with the option `num_workers`, not yet set, such as processes; found "
                f"`workers` {self.workers} with `executor` {spec}."
            )
        return executor(**{**spec.options, **({"num_workers": self.workers} if self.workers else {})})


class RunOptions(ExecutorOptions):
    """How a study is run. Nothing here belongs to its spec: another run of the same study may choose otherwise."""

    study: Annotated[
        Path | None,
        Option(RUNNING, short="-o", metavar="FOLDER", type=Path, other_names=("out", "output", "output_dir")),
    ] = None
    """Study folder. Default: studies/MODEL-DIGEST, so that the same settings continue the same study."""
    storage: Annotated[str | None, Option(RUNNING, metavar="URL")] = None
    """Optuna storage of the runs. Default: SQLite in the study folder."""
    final: Annotated[bool, Option(RUNNING)] = True
    """Train the chosen allocation to the end."""
    uniform: Annotated[bool, Option(RUNNING)] = False
    """Also train one uniform rank with as many parameters, to compare; rank 16, if the choice is uniform itself."""
    metric: Annotated[str, Option(RUNNING, metavar="METRIC", other_names=("metrics", "metric_for_best_model"))] = "loss"
    """What chooses the point of the final run that is kept, and is reported: loss, or a metric of generated answers:
    exact_match, f1, rouge_l, or package.module:function of two lists of texts. The search itself goes by the loss."""
    report_to: Annotated[
        tuple[str, ...],
        BeforeValidator(read_names),
        Option(RUNNING, metavar="TRACKER", other_names=("tracker", "wandb")),
    ] = ()
    """Tracker of the final run: trackio, wandb, tensorboard, ...; these three get the calibration runs too, when the
    decision is made. Default: none."""
    push_to_hub: Annotated[str | None, Option(RUNNING, metavar="OWNER/NAME", other_names=("hub_model_id",))] = None
    """Push the trained adapter and its model card to this repository of the hub. Default: none."""
    private: Annotated[bool, Option(RUNNING)] = False
    """Make the repository private if it does not exist yet."""
    license: Annotated[str | None, Option(RUNNING, metavar="LICENSE")] = None
    """Licence that the model card states, e.g. apache-2.0. Default: that of the base model's own card."""
    limit: Limit = Limit()
    """What calibration may cost at most in time and operations; part of ``budget``."""


class ComparisonOptions(ExecutorOptions):
    """How a comparison is run."""

    out: Annotated[
        Path | None,
        Option(RUNNING, short="-o", metavar="FOLDER", type=Path, other_names=("study", "output", "output_dir")),
    ] = None
    """Folder of the comparison. Default: comparisons/MODEL-DIGEST, so that the same settings continue it."""
