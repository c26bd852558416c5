"""The stages of a comparison: prepare, make equal, train, summarise. Each writes its artifacts into the folder.

Finished work is never repeated: running the command again continues, and methods can be added to a folder. Like
`marslora.pipeline`, this file passes work to an executor by dotted name and never imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from marslora.comparison.matching import (
    build_proportional_ladder,
    choose_ranks,
    convert_flops_to_examples,
    find_nearest,
    make_allocation,
)
from marslora.comparison.summary import correlate_with_loss, summarise_methods
from marslora.core.allocation import Allocation
from marslora.core.comparison import (
    Comparison,
    ComparisonSpec,
    MethodRun,
    MethodSpec,
    MethodSummary,
    Recipe,
    build_training,
)
from marslora.core.errors import ConfigError, MarsloraError
from marslora.core.parts import ModelInfo
from marslora.core.progress import Listener, ProgressBar, SilentListener
from marslora.core.record import Record, digest_texts
from marslora.core.runs import CountResult, Event, Failure, FinalResult, Prepared, ProgressEvent
from marslora.core.schedule import full_examples
from marslora.core.spec import CountSpec, FinalSpec
from marslora.executors import AbstractExecutor
from marslora.executors.inline import Inline
from marslora.metrics import LOSS
from marslora.pipeline import Pipeline
from marslora.recipes import describe_recipe, find_recipe
from marslora.store.study import Study

COUNT = "marslora.finetune.comparison_tasks:count_parameters"
COUNT_FLOPS = "marslora.finetune.comparison_tasks:count_row_flops"
TRAIN = "marslora.finetune.comparison_tasks:train"
RESULT = "compare.json"
"""The artifact that holds the comparison's result."""


@dataclass(frozen=True)
class MethodPlan:
    """How one method will be trained."""

    entry: MethodSpec
    recipe: Recipe
    run: FinalSpec
    """The spec of its runs, before they get seeds and folders."""
    num_planned: int = 0
    """Trainable parameters, counted before training."""
    flops_per_row: float = 0.0
    """Floating-point operations of training on one row; 0 if they were not counted."""
    flops_before: float = 0.0
    """Floating-point operations before the first step."""

    @property
    def flops(self) -> float:
        """Floating-point operations of one run, without validation and test."""
        return self.flops_before + self.run.full_examples * self.flops_per_row


@dataclass
class ComparisonStages:
    """The stages of one comparison. The study holds the model, the data and the settings common to all methods."""

    study: Study
    spec: ComparisonSpec
    common: Mapping[str, Any]
    executor: AbstractExecutor = field(default_factory=Inline)
    listener: Listener = field(default_factory=SilentListener)
    errors: dict[str, str] = field(default_factory=dict)
    """Why a method could not be planned, by its title; why a run failed, by its id."""

    def run(self) -> Comparison:
        """Run all stages that are not finished; return the comparison, which is stored as ``compare.json``.

        Raises any error of reading the model and the data or of planning the reference method. The failure of another
        method is recorded in the result.
        """
        prepared = Pipeline(self.study, self.executor, self.listener).prepare()
        planned = self.plan(prepared)
        results = self.train(planned)
        comparison = self._summarise(prepared, planned, results)
        self.study.write(RESULT, comparison, "")
        return comparison

    def plan(self, prepared: Prepared) -> dict[str, MethodPlan]:
        """Plan every method and make it equal to the first; return the plans by title, without those that failed."""
        plans = [self._plan_method(entry, prepared) for entry in self.spec.methods]
        self.listener.stage(f"Making methods equal: {self.spec.equal}")
        planned: dict[str, MethodPlan] = {}
        for method in plans:
            title, reference = method.entry.title, next(iter(planned.values()), None)
            try:
                planned[title] = self._make_equal(method, reference, prepared.info)
            except MarsloraError as error:
                if reference is None:
                    raise
                self.errors[title] = str(error)
                self.listener.note(f"{title} is left out: {error}")
        return planned

    def train(self, planned: Mapping[str, MethodPlan]) -> dict[str, FinalResult]:
        """Train the runs that have no result yet; return the results of all runs by id."""
        specs = [self._make_run(method, seed) for seed in self.spec.seeds for method in planned.values()]
        results = {spec.id: known for spec in specs if (known := self._read_result(spec)) is not None}
        waiting = [spec for spec in specs if spec.id not in results]
        if not waiting:
            return results
        finished = f"; {len(results)} runs are finished" if results else ""
        self.listener.stage(f"Training {len(planned)} methods x {len(self.spec.seeds)} seeds{finished}")
        bar = ProgressBar({spec.id: spec.full_examples for spec in waiting}, task="comparison")
        by_id = {spec.id: spec for spec in waiting}

        def receive(event: Event) -> None:
            match event:
                case ProgressEvent():
                    self.listener.advance(bar.advance(event))
                case FinalResult():
                    spec = by_id[event.id]
                    results[spec.id] = event
                    self.study.write(self._artifact_name(spec), event, spec.inputs_digest())
                    self.listener.advance(bar.finish(spec.id))
                case Failure():
                    self.errors[event.id] = f"{event.error}: {event.message}"
                    self.listener.note(f"{self._artifact_name(by_id[event.id])} failed: {self.errors[event.id]}")
                    self.listener.advance(bar.finish(event.id))

        self.executor.run_persistently(TRAIN, waiting, receive, self._tell_of_retry)
        return results

    def _tell_of_retry(self, failure: Failure) -> None:
        self.listener.note(f"{Path(failure.id).name} failed and is trained once more: {failure.message}")

    def _plan_method(self, entry: MethodSpec, prepared: Prepared) -> MethodPlan:
        info, spec = prepared.info, self.study.spec
        recipe = find_recipe(entry.recipe, entry.options)
        training = build_training(recipe, entry, dict(self.common), tuple(part.name for part in info.parts))
        allocation = make_allocation(choose_ranks(recipe, entry, self.spec), info, training.full)
        run = FinalSpec(
            model=spec.model,
            data=spec.data,
            training=training,
            allocation=allocation,
            module_ranks=info.module_ranks(allocation),
            full_modules=info.full_modules(training.full),
            stacked=info.stacked(allocation),
            token_indices=info.token_indices(training.trainable_token_indices),
            full_examples=full_examples(spec.training, prepared.data.num_train),
            metric=self.spec.metric,
            output_folder=str(self.study.path("runs", make_slug(entry.title))),
            cache_folder=str(self.study.path("cache")),
        )
        return MethodPlan(entry, recipe, run)

    def _make_equal(self, method: MethodPlan, reference: MethodPlan | None, info: ModelInfo) -> MethodPlan:
        planned = method.run.allocation
        if reference is None or self.spec.equal != "parameters":
            method = replace(method, num_planned=self._count_parameters(method, info, (planned,))[0])
        else:
            rungs = build_proportional_ladder(planned)
            counts = self._count_parameters(method, info, rungs)
            chosen = find_nearest(counts, reference.num_planned)
            method = replace(method, run=change_ranks(method.run, rungs[chosen], info), num_planned=counts[chosen])
        if self.spec.equal != "compute":
            return method
        method = self._measure_flops(method)
        if reference is None:
            return method
        left = reference.flops - method.flops_before
        examples = convert_flops_to_examples(left, method.flops_per_row, method.run.training.batch_size)
        return replace(method, run=method.run.model_copy(update={"full_examples": examples}))

    def _count_parameters(
        self, method: MethodPlan, info: ModelInfo, allocations: Sequence[Allocation]
    ) -> tuple[int, ...]:
        request = CountSpec(run=method.run, info=info, allocations=tuple(allocations))
        return self._ask_once(COUNT, request, f"plan/{make_slug(method.entry.title)}-count.json").num_trainable

    def _measure_flops(self, method: MethodPlan) -> MethodPlan:
        title = method.entry.title
        run = method.run.model_copy(update={"output_folder": str(self.study.path("plan", make_slug(title)))})
        count = self._ask_once(COUNT_FLOPS, run, f"plan/{make_slug(title)}-weight.json")
        if not count.flops_per_row:
            raise ConfigError(
                f"the floating-point operations of `{title}` cannot be counted (found {count.flops_per_row}). Make "
                "parameters or examples equal instead (--equal)."
            )
        return replace(method, flops_per_row=count.flops_per_row, flops_before=count.flops_before)

    def _ask_once(self, work: str, spec: Record, name: str) -> CountResult:
        if (known := self.study.read(name, CountResult, spec.digest())) is not None:
            return known
        answer = self.executor.ask(work, spec, CountResult)
        self.study.write(name, answer, spec.digest())
        return answer

    def _make_run(self, method: MethodPlan, seed: int) -> FinalSpec:
        folder = f"{method.run.output_folder}.s{seed}"
        return method.run.model_copy(update={"seed": seed, "order_seed": seed, "output_folder": folder})

    def _read_result(self, spec: FinalSpec) -> FinalResult | None:
        return self.study.read(self._artifact_name(spec), FinalResult, spec.inputs_digest())

    def _artifact_name(self, spec: FinalSpec) -> str:
        return f"runs/{spec.output_folder.rpartition('/')[2]}.json"

    def _summarise(
        self, prepared: Prepared, planned: Mapping[str, MethodPlan], results: Mapping[str, FinalResult]
    ) -> Comparison:
        tested = all(result.test_loss is not None for result in results.values()) and bool(results)
        metric = "test_loss" if tested else "validation_loss"
        methods = [self._summarise_method(entry, planned.get(entry.title), results) for entry in self.spec.methods]
        first = next(iter(results.values()), None)
        return Comparison(
            model=self.study.spec.model.path,
            architecture=prepared.info.architecture,
            device=prepared.device,
            versions=prepared.versions,
            equal=self.spec.equal,
            seeds=self.spec.seeds,
            metric=metric,
            answer_metric=None if self.spec.metric == LOSS else self.spec.metric,
            loss_correlation=correlate_with_loss(list(results.values()), metric),
            full_examples=next(iter(planned.values())).run.full_examples,
            base_validation_loss=first.base_validation_loss if first else None,
            base_test_loss=first.base_test_loss if first else None,
            methods=summarise_methods(methods, metric),
        )

    def _summarise_method(
        self, entry: MethodSpec, method: MethodPlan | None, results: Mapping[str, FinalResult]
    ) -> MethodSummary:
        summary = MethodSummary(name=entry.title, recipe=entry.recipe, error=self.errors.get(entry.title, ""))
        if method is None:
            return summary
        specs = {seed: self._make_run(method, seed) for seed in self.spec.seeds}
        return summary.model_copy(
            update={
                "summary": describe_recipe(entry.recipe),
                "source": method.recipe.source,
                "training": method.run.training,
                "allocation": method.run.allocation,
                "examples": method.run.full_examples,
                "num_planned": method.num_planned,
                "flops_per_row": method.flops_per_row or None,
                "runs": tuple(
                    MethodRun(seed=seed, result=results.get(spec.id), error=self.errors.get(spec.id, ""))
                    for seed, spec in specs.items()
                ),
            }
        )


def change_ranks(run: FinalSpec, allocation: Allocation, info: ModelInfo) -> FinalSpec:
    """Return the spec of the same run at another allocation."""
    return run.model_copy(
        update={
            "allocation": allocation,
            "module_ranks": info.module_ranks(allocation),
            "stacked": info.stacked(allocation),
        }
    )


def make_slug(title: str) -> str:
    """Make a file name of a title. Different titles get different names."""
    plain = re.sub(r"[^\w.=-]+", "_", title)
    return title if plain == title else f"{plain}-{digest_texts(title)[:6]}"
