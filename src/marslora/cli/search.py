"""``marslora search``: the whole way, from a model and data to a trained adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marslora.cli import _options as options
from marslora.cli import _settings
from marslora.cli._executor import executor_of
from marslora.cli._run import watch
from marslora.core.budget import Budget
from marslora.core.errors import ConfigError
from marslora.core.spec import SearchSpec


def command(
    model: options.Model = None,
    train: options.Train = None,
    validation: options.Validation = None,
    test: options.Test = None,
    image_folder: options.ImageFolder = None,
    max_examples: options.MaxExamples = None,
    config: options.Config = None,
    ranks: options.Ranks = None,
    strategy: options.Strategy = None,
    budget: options.Budget = None,
    max_parameters: options.MaxParameters = None,
    max_memory: options.MaxMemory = None,
    max_rank: options.MaxRank = None,
    sweep: options.Sweep = None,
    seed: options.Seed = None,
    epochs: options.Epochs = None,
    examples: options.Examples = None,
    batch_size: options.BatchSize = None,
    accumulation: options.Accumulation = None,
    learning_rate: options.LearningRate = None,
    part_learning_rate: options.PartLearningRate = None,
    alpha_over_rank: options.AlphaOverRank = None,
    dropout: options.Dropout = None,
    full: options.Full = None,
    experts: options.Experts = False,
    optimizer: options.Optimizer = None,
    adapter: options.Adapter = None,
    calibrate: options.Calibrate = None,
    gradient_checkpointing: options.GradientCheckpointing = False,
    study: options.Study = None,
    storage: options.Storage = None,
    workers: options.Workers = 0,
    device: options.Device = None,
    dtype: options.Dtype = None,
    final: options.Final = True,
    uniform: options.Uniform = False,
    report_to: options.ReportTo = None,
) -> None:
    """Find the LoRA rank of every part, train the adapter, write the report.

    The same command run again continues where it was interrupted.

    Example: marslora search --model ./llava --train train.jsonl --eval eval.jsonl --ranks 4,16,64 --epochs 2
    """
    given = _given(locals())
    from marslora.settings import default_folder, spec_from

    settings = _settings.merge(_settings.read_config(config), given)
    if "path" not in settings.get("model", {}):
        raise ConfigError("`--model` is missing. Give a model folder, or try `marslora demo` for an embedded one.")
    if not settings.get("data", {}).get("train"):
        raise ConfigError("`--train` is missing. Give a file of rows, or try `marslora demo` for embedded ones.")
    if isinstance(strategy_settings := settings.get("search", {}).get("strategy"), dict):
        strategy_settings.setdefault("name", SearchSpec().strategy.name)  # --sweep alone
    limited = Budget.of(_settings.take(settings, "search", "budget"))
    settings = _settings.merge(settings, {"search": {"budget": limited.runs}})
    spec = spec_from(settings, str(config) if config else "the command line")
    watch(
        spec,
        study or default_folder(spec),
        storage=storage,
        final=final,
        uniform=uniform,
        report_to=report_to or (),
        executor=executor_of(workers),
        limit=limited.limit,
    )


def _given(words: Mapping[str, Any]) -> dict[str, Any]:
    """The options by their place in a configuration file; None for those that were not given."""

    def named(*names: str) -> dict[str, Any]:
        return {name: words[name] for name in names}

    training = named("epochs", "examples", "batch_size", "accumulation", "learning_rate")
    training |= named("alpha_over_rank", "dropout", "full")
    return {
        "model": {"path": words["model"], "experts": words["experts"] or None, **named("device", "dtype")},
        "data": named("train", "validation", "test", "image_folder", "max_examples"),
        "training": {
            **training,
            "part_learning_rates": _settings.rates(words["part_learning_rate"] or ()),
            "optimizer": {"name": words["optimizer"]},
            "adapter": {"name": words["adapter"]},
            "gradient_checkpointing": words["gradient_checkpointing"] or None,
        },
        "search": {
            "strategy": {"name": words["strategy"], "options": {"sweep": words["sweep"]}},
            "adapter": {"name": words["calibrate"]},
            **named("budget", "max_parameters", "max_memory", "max_rank", "seed"),
        },
        "ranks": _settings.ranks(words["ranks"]) if words["ranks"] else None,
    }
