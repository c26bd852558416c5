"""What is wrong with a request is said before a folder is made, weights are loaded or rows are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marslora import gradients, methods, metrics, optim, strategies
from marslora.core import plugins
from marslora.core.comparison import MethodSpec, merge_training
from marslora.core.errors import ConfigError
from marslora.core.spec import PluginSpec, StudySpec, TrackerSpec, TrainingSpec
from marslora.executors.inline import Inline
from marslora.recipes import find_recipe
from marslora.run_options import RunOptions
from marslora.store.storage_errors import check_storage

CHECK_TRACKERS = "marslora.finetune.trackers:check"


def check_study(spec: StudySpec, options: RunOptions) -> None:
    """Raise `ConfigError` for plugins, options, trackers and functions that do not exist or do not fit together, and
    `StudyError` for a storage that cannot be reached."""
    check_training(spec.training, experts=spec.model.experts)
    has_choice = spec.space.has_choice or len(spec.learning_rates) > 1 or spec.part_rate_factors
    if make_strategy(spec.search.strategy).measures and has_choice:
        calibration = spec.calibration
        dropout, experts = calibration.dropout, spec.model.experts
        tokens = bool(calibration.trainable_token_indices)
        methods.check_adapter(calibration.adapter, packed=True, dropout=dropout, experts=experts, tokens=tokens)
    check_run(options)


def check_metric(name: str) -> None:
    """Raise `ConfigError` for a metric that does not exist, or whose package is not installed."""
    if name != metrics.LOSS:
        metrics.find_metric(name)(["a"], ["a"])


def check_run(options: RunOptions) -> None:
    """Raise `ConfigError` for an executor, a metric or trackers that do not exist and for a hub that cannot be pushed
    to, and `StudyError` for a storage that cannot be reached."""
    options.make_executor()
    check_metric(options.metric)
    if options.report_to:
        Inline().run(CHECK_TRACKERS, [TrackerSpec(names=options.report_to)], lambda _: None)
    if options.storage is not None:
        check_storage(options.storage)
    if options.push_to_hub is not None:
        if not options.final:
            raise ConfigError("`push_to_hub` needs the adapter of a final run, found `final` false. Leave one out.")
        from marslora.deployment.push import check_can_push

        check_can_push(options.push_to_hub)


def check_method(entry: MethodSpec, common: Mapping[str, Any], *, experts: bool) -> None:
    """Raise `ConfigError` for a method of a comparison that no final run can train."""
    check_training(merge_training(find_recipe(entry.recipe, entry.options), entry, dict(common)), experts=experts)


def check_training(training: TrainingSpec, *, experts: bool) -> None:
    """Raise `ConfigError` for an adapter, an optimizer, a combiner or an objective that a final run cannot use."""
    tokens = bool(training.trainable_token_indices)
    methods.check_adapter(training.adapter, dropout=training.dropout, experts=experts, tokens=tokens)
    plugins.check(training.optimizer.name, optim)
    optim.check_optimizer(training.optimizer)
    combiner = training.gradients
    plugins.load(gradients, combiner.name, gradients.AbstractCombiner)(**combiner.options)
    for objective in training.objectives:
        if objective.function is not None:
            plugins.import_object(objective.function)


def make_strategy(named: PluginSpec) -> strategies.AbstractStrategy:
    """The strategy of this name, with its options. Raises `ConfigError` if either is unknown."""
    return plugins.load(strategies, named.name, strategies.AbstractStrategy)(**named.options)
