"""The stages of a comparison: prepare, make equal, train, summarise. Each leaves its artifact in the folder.

What is finished is never done again: the same command run again continues, and methods can be added to a folder. Like
`marslora.pipeline`, this file knows both wings and hands work to an executor by dotted name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from marslora import adapters, gradients, methods, optim
from marslora.comparison.matching import allocation_of, examples_for, ladder, nearest
from marslora.comparison.summary import summarised
from marslora.core import plugins
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
from marslora.core.runs import Counted, Event, Failure, FinalResult, Prepared, ProgressEvent
from marslora.core.schedule import full_examples
from marslora.core.spec import CountSpec, FinalSpec
from marslora.executors import AbstractExecutor
from marslora.executors.inline import Inline
from marslora.pipeline import Pipeline
from marslora.recipes import describe_recipe, find_recipe
from marslora.store.study import Study

COUNT = "marslora.finetune.comparison_tasks:count_parameters"
WEIGH = "marslora.finetune.comparison_tasks:weigh_row"
TRAIN = "marslora.finetune.comparison_tasks:train"
RESULT = "compare.json"


@dataclass(frozen=True)
class Planned:
    """One method, ready to be trained."""

    entry: MethodSpec
    recipe: Recipe
    run: FinalSpec
    """Of no seed yet."""
    num_planned: int = 0
    flops_per_row: float = 0.0
    """Of training; 0 where nobody asked."""
    flops_before: float = 0.0
    """Of what is done before the first step."""

    @property
    def flops(self) -> float:
        """Of everything but scoring."""
        return self.flops_before + self.run.full_examples * self.flops_per_row


@dataclass
class Comparing:
    """The stages of one comparison. The study holds the model, the data and the settings that all methods share."""

    study: Study
    spec: ComparisonSpec
    common: Mapping[str, Any]
    executor: AbstractExecutor = field(default_factory=Inline)
    listener: Listener = field(default_factory=SilentListener)
    errors: dict[str, str] = field(default_factory=dict)
    """Why a method could not be planned, by its title; why a run failed, by its id."""

    def run(self) -> Comparison:
        """All stages that are not there yet; the comparison, kept in ``compare.json``.

        Raises what reading model and data raises, `ConfigError` for a method that is not there or asked for wrongly,
        and what the reference does wrong; any other method that fails is reported in the result.
        """
        prepared = Pipeline(self.study, self.executor, self.listener).prepare()
        planned = self.plan(prepared)
        results = self.train(planned)
        comparison = self._summary(prepared, planned, results)
        self.study.write(RESULT, comparison, "")
        return comparison

    def plan(self, prepared: Prepared) -> dict[str, Planned]:
        """Every method that can be trained, made equal, by title."""
        asked = [self._planned(entry, prepared) for entry in self.spec.methods]
        self.listener.stage(f"Making methods equal: {self.spec.equal}")
        found: dict[str, Planned] = {}
        for method in asked:
            title, reference = method.entry.title, next(iter(found.values()), None)
            try:
                found[title] = self._equal(method, reference, prepared.info)
            except MarsloraError as error:
                if reference is None:
                    raise
                self.errors[title] = str(error)
                self.listener.note(f"{title} is left out: {error}")
        return found

    def train(self, planned: Mapping[str, Planned]) -> dict[str, FinalResult]:
        """The results of all runs by their ids; those that are there already are not made again."""
        specs = [self._seeded(method, seed) for seed in self.spec.seeds for method in planned.values()]
        found = {spec.id: known for spec in specs if (known := self._known(spec)) is not None}
        waiting = [spec for spec in specs if spec.id not in found]
        if not waiting:
            return found
        there = f"; there already: {len(found)}" if found else ""
        self.listener.stage(f"Training {len(planned)} methods x {len(self.spec.seeds)} seeds{there}")
        meter = ProgressBar({spec.id: spec.full_examples for spec in waiting}, task="comparison")
        by_id = {spec.id: spec for spec in waiting}

        def receive(event: Event) -> None:
            match event:
                case ProgressEvent():
                    self.listener.advance(meter.advance(event))
                case FinalResult():
                    spec = by_id[event.id]
                    found[spec.id] = event
                    self.study.write(self._name(spec), event, self._inputs(spec))
                    self.listener.advance(meter.finish(spec.id))
                case Failure():
                    self.errors[event.id] = f"{event.error}: {event.message}"
                    self.listener.note(f"{self._name(by_id[event.id])} failed: {self.errors[event.id]}")
                    self.listener.advance(meter.finish(event.id))

        self.executor.run(TRAIN, waiting, receive)
        return found

    def _planned(self, entry: MethodSpec, prepared: Prepared) -> Planned:
        info, spec = prepared.info, self.study.spec
        recipe = find_recipe(entry.recipe, entry.options)
        training = build_training(recipe, entry, dict(self.common), tuple(part.name for part in info.parts))
        plugins.check(training.adapter.name, adapters, methods)
        plugins.check(training.optimizer.name, optim)
        plugins.check(training.gradients.name, gradients)
        allocation = allocation_of(ranks_of(recipe, entry, self.spec), info, training.full)
        run = FinalSpec(
            model=spec.model,
            data=spec.data,
            training=training,
            allocation=allocation,
            module_ranks=info.module_ranks(allocation),
            full_modules=info.full_modules(training.full),
            stacked=info.stacked(allocation),
            full_examples=full_examples(spec.training, prepared.data.num_train),
            output_folder=str(self.study.path("runs", slug(entry.title))),
            cache_folder=str(self.study.path("cache")),
        )
        return Planned(entry, recipe, run)

    def _equal(self, method: Planned, reference: Planned | None, info: ModelInfo) -> Planned:
        own = method.run.allocation
        if reference is None or self.spec.equal != "parameters":
            method = replace(method, num_planned=self._counts(method, info, (own,))[0])
        else:
            rungs = ladder(own)
            counts = self._counts(method, info, rungs)
            chosen = nearest(counts, reference.num_planned)
            method = replace(method, run=with_ranks(method.run, rungs[chosen], info), num_planned=counts[chosen])
        if self.spec.equal != "compute":
            return method
        method = self._weighed(method)
        if reference is None:
            return method
        left = reference.flops - method.flops_before
        examples = examples_for(left, method.flops_per_row, method.run.training.batch_size)
        return replace(method, run=method.run.model_copy(update={"full_examples": examples}))

    def _counts(self, method: Planned, info: ModelInfo, allocations: Sequence[Allocation]) -> tuple[int, ...]:
        asked = CountSpec(run=method.run, info=info, allocations=tuple(allocations))
        return self._ask(COUNT, asked, f"plan/{slug(method.entry.title)}-count.json").num_trainable

    def _weighed(self, method: Planned) -> Planned:
        title = method.entry.title
        aside = method.run.model_copy(update={"output_folder": str(self.study.path("plan", slug(title)))})
        found = self._ask(WEIGH, aside, f"plan/{slug(title)}-weight.json")
        if not found.flops_per_row:
            raise ConfigError(f"no floating-point operations of `{title}` could be counted.")
        return replace(method, flops_per_row=found.flops_per_row, flops_before=found.flops_before)

    def _ask(self, work: str, spec: Record, name: str) -> Counted:
        if (known := self.study.read(name, Counted, spec.digest())) is not None:
            return known
        answer = self.executor.ask(work, spec, Counted)
        self.study.write(name, answer, spec.digest())
        return answer

    def _seeded(self, method: Planned, seed: int) -> FinalSpec:
        folder = f"{method.run.output_folder}.s{seed}"
        return method.run.model_copy(update={"seed": seed, "order_seed": seed, "output_folder": folder})

    def _known(self, spec: FinalSpec) -> FinalResult | None:
        return self.study.read(self._name(spec), FinalResult, self._inputs(spec))

    def _name(self, spec: FinalSpec) -> str:
        return f"runs/{spec.output_folder.rpartition('/')[2]}.json"

    def _inputs(self, spec: FinalSpec) -> str:
        """What the result was made from; not where things lie."""
        return digest_texts(spec.model_copy(update={"output_folder": "", "cache_folder": ""}).digest())

    def _summary(
        self, prepared: Prepared, planned: Mapping[str, Planned], results: Mapping[str, FinalResult]
    ) -> Comparison:
        tested = all(result.test_loss is not None for result in results.values()) and bool(results)
        metric = "test_loss" if tested else "validation_loss"
        methods = [self._compared(entry, planned.get(entry.title), results) for entry in self.spec.methods]
        first = next(iter(results.values()), None)
        return Comparison(
            model=self.study.spec.model.path,
            architecture=prepared.info.architecture,
            device=prepared.device,
            versions=prepared.versions,
            equal=self.spec.equal,
            seeds=self.spec.seeds,
            metric=metric,
            full_examples=next(iter(planned.values())).run.full_examples,
            base_validation_loss=first.base_validation_loss if first else None,
            base_test_loss=first.base_test_loss if first else None,
            methods=summarised(methods, metric),
        )

    def _compared(self, entry: MethodSpec, method: Planned | None, results: Mapping[str, FinalResult]) -> MethodSummary:
        shown = MethodSummary(name=entry.title, recipe=entry.recipe, error=self.errors.get(entry.title, ""))
        if method is None:
            return shown
        specs = {seed: self._seeded(method, seed) for seed in self.spec.seeds}
        return shown.model_copy(
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


def ranks_of(recipe: Recipe, entry: MethodSpec, spec: ComparisonSpec) -> Any:
    """The ranks of a method before it is made equal: its own, else those of all, else the recipe's.

    A recipe whose ranks differ by part is about them: the ranks of all do not touch it.
    """
    if entry.ranks is not None:
        return entry.ranks
    return recipe.ranks if spec.ranks is None or not isinstance(recipe.ranks, int) else spec.ranks


def with_ranks(run: FinalSpec, allocation: Allocation, info: ModelInfo) -> FinalSpec:
    """The same run at other ranks."""
    return run.model_copy(
        update={
            "allocation": allocation,
            "module_ranks": info.module_ranks(allocation),
            "stacked": info.stacked(allocation),
        }
    )


def slug(title: str) -> str:
    """A title as a file's name; titles that differ have names that differ."""
    plain = re.sub(r"[^\w.=-]+", "_", title)
    return title if plain == title else f"{plain}-{digest_texts(title)[:6]}"
