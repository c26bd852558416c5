"""The options of the family, and a model with its heads, routers and balance loss in it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from marslora.core.errors import ConfigError
from marslora.core.record import Record
from marslora.methods import _balance_losses, _own_folder, _plain_folder
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch, Merges
from marslora.methods._context import BatchContext
from marslora.methods._layers import AdaptedModel, sizes
from marslora.methods._mixture import MixtureLinear
from marslora.methods._router import BlockSource, Gate, LabelSource, LearnedSource, Router

FEED_FORWARD = r"\.(mlp|feed_forward|ffn)\.|\.(fc1|fc2)$"
"""Linears of a transformer's feed-forward blocks, by the names they have in `transformers`."""


class Mixture(Record):
    """What tells the kinds of the family apart. A kind gives its own defaults; a user may change each."""

    routing: Literal["task", "modality", "learned"]
    """What weighs the heads: the row's task, the kind of the token, or a router."""
    heads: int | tuple[int, ...] = 3
    """Heads of a linear; several numbers are spread evenly over a part's layers, from the input up. Tasks and
    modalities have one each, whatever this says."""
    heads_in: str = ".*"
    """A regular expression: linears in whose path it is found have heads, all others one (plain LoRA)."""
    shared_a: bool = True
    """One A for all heads, or one for each."""
    router: Literal["linear", "block"] = "linear"
    """A router for each linear, or one for all linears of a block, which reads the block's input."""
    router_bias: bool = False
    top: int | None = Field(None, gt=0)
    """Only so many heads a token; None: all."""
    renormalize: bool = False
    """Let the weights of the ``top`` heads add up to 1."""
    gate: Gate = "probability"
    """What a chosen head is multiplied by: see `marslora.methods._router.choose`."""
    balance: Literal["none", "mole", "switch"] = "none"
    """The load balance added to the loss."""
    balance_weight: float = Field(0.05, ge=0)
    column: str = "task"
    """The column of the data files that names a row's task."""


class MixtureMethod(AbstractMethod):
    """A kind of the family: `defaults` are its settings."""

    defaults: ClassVar[dict[str, Any]] = {}
    merges: ClassVar[Merges] = "no"
    serves = "Python with marslora: heads are weighed for every token, which no server's LoRA does"

    def __init__(self, **options: Any):
        self.settings = Mixture.parse({**self.defaults, **options}, f"adapter {type(self).__name__}")
        self.options = options
        self.column = self.settings.column if self.settings.routing == "task" else None
        try:
            self._heads_in = re.compile(self.settings.heads_in)
        except re.error as error:
            raise ConfigError(f"`heads_in` {self.settings.heads_in!r} is no regular expression: {error}.") from None

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> MixtureModel:  # noqa: ARG002
        """Heads in place of every linear of the plan."""
        if self.settings.routing == "task" and not plan.tasks:
            raise ConfigError(f"This adapter has a head for each task; no row names one in column `{self.column}`.")
        context = BatchContext(model, plan.tasks)
        plan = plan.model_copy(update={"modalities": context.modalities})
        change = MixtureModel(model, plan, context, self)
        if self.settings.routing == "modality" and not context.tokens:
            raise ConfigError(
                f"{type(model).__name__} does not say which tokens stand for pictures or sound, so heads cannot be "
                "chosen by modality. Choose an adapter with learned routing."
            )
        heads = self.heads_of(plan)
        for path in plan.ranks:
            change.insert_layer(path, lambda base, at, context: self._linear(base, at, context, plan, heads[at]))
        self._add_sources(change)
        change.inject_whole_modules()
        return change

    def heads_of(self, plan: AdapterPlan) -> dict[str, int]:
        """Heads of every linear, by path."""
        depth = _depths(plan)
        found = {}
        for path, part in plan.parts.items():
            if self._heads_in.search(path) is None:
                found[path] = 1
            elif self.settings.routing == "task":
                found[path] = len(plan.tasks)
            elif self.settings.routing == "modality":
                found[path] = len(plan.modalities) if part == "language" else 1
            else:
                found[path] = self._learned_heads(depth[path])
        return found

    def _learned_heads(self, depth: float) -> int:
        heads = self.settings.heads
        return heads if isinstance(heads, int) else heads[int(depth * len(heads))]

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """``a r I + N r O`` a linear (a is 1 or N), and ``N I (+ N)`` a router."""
        heads = self.heads_of(plan)
        total = 0
        for path, rank in plan.ranks.items():
            (inputs, outputs), N = sizes[path], heads[path]
            total += (1 if self.settings.shared_a else N) * rank * inputs + N * rank * outputs
        for paths in self._router_groups(plan, heads):
            total += heads[paths[0]] * (sizes[paths[0]][0] + self.settings.router_bias)
        return total

    def _router_groups(self, plan: AdapterPlan, heads: Mapping[str, int]) -> Iterator[list[str]]:
        """The linears of every router; the first of each reads what the router reads."""
        if self.settings.routing != "learned":
            return
        groups: dict[str, list[str]] = defaultdict(list)
        for path in plan.ranks:
            if heads[path] > 1:
                groups[path.rpartition(".")[0] if self.settings.router == "block" else path].append(path)
        yield from groups.values()

    def _linear(
        self, base: nn.Module, path: str, context: BatchContext, plan: AdapterPlan, heads: int
    ) -> MixtureLinear:
        return MixtureLinear(base, path, context, plan, heads=heads, shared_a=self.settings.shared_a)

    def _add_sources(self, change: MixtureModel) -> None:
        plan, context, heads = change.plan, change.context, self.heads_of(change.plan)
        if self.settings.routing != "learned":
            for path in plan.ranks:
                if heads[path] > 1:
                    layer = change.mixture(path)
                    layer.by = self.settings.routing
                    layer.source = LabelSource(context, plan.parts[path], self.settings.routing, heads[path])
        for paths in self._router_groups(plan, heads):
            self._add_router(change, paths, heads[paths[0]])

    def _add_router(self, change: MixtureModel, paths: list[str], heads: int) -> None:
        first = change.mixture(paths[0])
        router = Router(
            sizes(first.base)[0],
            heads,
            bias=self.settings.router_bias,
            seed=change.plan.seed,
            path=paths[0],
            device=first.lora_B[0].device,
        )
        kind = BlockSource if self.settings.router == "block" else LearnedSource
        source = kind(router, change.context, change.plan.parts[paths[0]], self.settings)
        if isinstance(source, BlockSource):
            block = change.base.get_submodule(paths[0].rpartition(".")[0])
            change.keep(block.register_forward_pre_hook(source.hook, with_kwargs=True))
        first.router = router
        for path in paths:
            layer = change.mixture(path)
            layer.by, layer.source = "router", source


class MixtureModel(AdaptedModel):
    """A model with several heads in its linears."""

    def __init__(self, base: nn.Module, plan: AdapterPlan, context: BatchContext, method: MixtureMethod):
        super().__init__(base, plan, context)
        self.method = method

    def mixture(self, path: str) -> MixtureLinear:
        """The graft at ``path``."""
        layer = self.layers[path]
        assert isinstance(layer, MixtureLinear)
        return layer

    def extra_loss(self) -> Tensor | None:
        """The weighted load balance of the last forward."""
        settings, routed = self.method.settings, self.context.routed
        if settings.balance == "none" or not routed:
            return None
        balance = _balance_losses.mole if settings.balance == "mole" else _balance_losses.switch
        return settings.balance_weight * balance(routed, self.context)

    def save(self, folder: Path) -> None:
        """Everything, for `marslora.methods._own_folder.attach`; and where tasks choose the heads, a plain LoRA folder
        of PEFT's for each task in ``tasks/``."""
        _own_folder.write(folder, self, self.method)
        if self.method.settings.routing == "task":
            for place, task in enumerate(self.plan.tasks):
                self.save_plain(folder / "tasks" / _plain_folder.folder_name(task, place), task)


def _depths(plan: AdapterPlan) -> dict[str, float]:
    """Where a linear stands in its part's stack of layers: from 0 at the input to just below 1."""
    numbers = {path: int(found[1]) if (found := re.search(r"\.(\d+)\.", path)) else 0 for path in plan.parts}
    layers = {
        part: max(number for path, number in numbers.items() if plan.parts[path] == part) + 1
        for part in set(plan.parts.values())
    }
    return {path: numbers[path] / layers[part] for path, part in plan.parts.items()}
