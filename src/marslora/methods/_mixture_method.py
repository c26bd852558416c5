"""The method of the mixture family with its options, and the model with heads, routers and balance loss."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from marslora.core.errors import ConfigError
from marslora.core.linears import read_linear_sizes
from marslora.methods import _balance_losses, _own_folder, _plain_folder
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch, Merges
from marslora.methods._context import BatchContext
from marslora.methods._layers import AdaptedModel
from marslora.methods._mixture import MixtureLinear
from marslora.methods._router import BlockSource, Gate, LabelSource, LearnedSource, Router

FEED_FORWARD = r"\.(mlp|feed_forward|ffn)\.|\.(fc1|fc2)$"
"""Matches the paths of linears in a transformer's feed-forward blocks, by the names that `transformers` uses."""
Routing = Literal["task", "modality", "learned"]
Heads = int | tuple[int, ...]
RouterReach = Literal["linear", "block"]
Top = Annotated[int, Field(gt=0)] | None
Balance = Literal["none", "mole", "switch"]
BalanceWeight = Annotated[float, Field(ge=0)]
"""Types of options of the mixture family, which its methods need to set other defaults."""


class MixtureMethod(AbstractMethod):
    """A method of the mixture family, which its options describe. Every method has defaults of its own."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractMethod.Config):
        """The options of the mixture family."""

        routing: Routing = "learned"
        """What weights the heads: the task of the row, the modality of the token, or a router."""
        heads: Heads = 3
        """The number of heads of a linear under learned routing. Several numbers are spread evenly over a part's
        layers, from the input up. With other routing, there is one head for each task or modality."""
        heads_in: str = ".*"
        """A regular expression. Linears whose path it matches anywhere have several heads; all others have plain
        LoRA."""
        shared_a: bool = True
        """Whether all heads share one A."""
        router: RouterReach = "linear"
        """A router for each linear, or one for all linears of a block, which reads the block's input."""
        router_bias: bool = False
        """Whether routers have a bias."""
        top: Top = None
        """The number of heads used for each token; null: all."""
        renormalize: bool = False
        """Whether the weights of the ``top`` heads are scaled to add up to 1."""
        gate: Gate = "probability"
        """The factor of a chosen head if not all are used: ``probability``; ``straight_through``: 1 with the gradient
        of the probability; ``none``: 1 without a gradient."""
        balance: Balance = "none"
        """The load balance added to the loss."""
        balance_weight: BalanceWeight = 0.05
        """The factor of the load balance."""
        column: str = "task"
        """The column of the data files that names a row's task."""

        def __post_init__(self) -> None:
            try:
                re.compile(self.heads_in)
            except re.error as error:
                raise ConfigError(
                    f"The adapter's `heads_in` must be a regular expression, found {self.heads_in!r} ({error}). "
                    f"Use e.g. {FEED_FORWARD!r} for feed-forward blocks."
                ) from None

    config: Config
    merges: ClassVar[Merges] = "no"
    serves = "Python with marslora: heads are weighted for every token, which no server's LoRA does"

    def __init__(self, /, **options: Any):
        super().__init__(**options)
        self.column = self.config.column if self.config.routing == "task" else None

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> MixtureModel:  # noqa: ARG002
        """Replace every linear of the plan by one with heads."""
        if self.config.routing == "task" and not plan.tasks:
            raise ConfigError(
                f"The adapter has a head for each task, but no training row names its task in column `{self.column}`. "
                "Add the column to the data, or set the adapter's `column` to the one that names the task."
            )
        context = BatchContext(model, plan.tasks)
        plan = plan.model_copy(update={"modalities": context.modalities})
        change = MixtureModel(model, plan, context, self)
        if self.config.routing == "modality" and not context.tokens:
            raise ConfigError(
                f"The configuration of {type(model).__name__} does not name the tokens of pictures or sound, "
                "so heads cannot be chosen by modality. Choose an adapter with learned routing, such as `hydralora`."
            )
        heads = self.heads_of(plan)
        for path in plan.ranks:
            change.insert_layer(path, lambda base, at, context: self._linear(base, at, context, plan, heads[at]))
        self._add_sources(change)
        change.inject_whole_modules()
        return change

    def heads_of(self, plan: AdapterPlan) -> dict[str, int]:
        """Return the number of heads of every linear by path."""
        depth = _depths(plan)
        heads = {}
        for path, part in plan.parts.items():
            if re.search(self.config.heads_in, path) is None:
                heads[path] = 1
            elif self.config.routing == "task":
                heads[path] = len(plan.tasks)
            elif self.config.routing == "modality":
                heads[path] = len(plan.modalities) if part == "language" else 1
            else:
                heads[path] = self._learned_heads(depth[path])
        return heads

    def _learned_heads(self, depth: float) -> int:
        heads = self.config.heads
        return heads if isinstance(heads, int) else heads[int(depth * len(heads))]

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Count ``a r I + N r O`` for each linear (a is 1 or N) and ``N I``, or ``N I + N``, for each router."""
        heads = self.heads_of(plan)
        total = 0
        for path, rank in plan.ranks.items():
            (inputs, outputs), N = sizes[path], heads[path]
            total += (1 if self.config.shared_a else N) * rank * inputs + N * rank * outputs
        for paths in self._router_groups(plan, heads):
            total += heads[paths[0]] * (sizes[paths[0]][0] + self.config.router_bias)
        return total

    def _router_groups(self, plan: AdapterPlan, heads: Mapping[str, int]) -> Iterator[list[str]]:
        """Iterate over the linears of each router. The first one has the router's input size."""
        if self.config.routing != "learned":
            return
        groups: dict[str, list[str]] = defaultdict(list)
        for path in plan.ranks:
            if heads[path] > 1:
                groups[path.rpartition(".")[0] if self.config.router == "block" else path].append(path)
        yield from groups.values()

    def _linear(
        self, base: nn.Module, path: str, context: BatchContext, plan: AdapterPlan, heads: int
    ) -> MixtureLinear:
        return MixtureLinear(base, path, context, plan, heads=heads, shared_a=self.config.shared_a)

    def _add_sources(self, change: MixtureModel) -> None:
        plan, context, heads = change.plan, change.context, self.heads_of(change.plan)
        if self.config.routing != "learned":
            for path in plan.ranks:
                if heads[path] > 1:
                    layer = change.mixture(path)
                    layer.by = self.config.routing
                    layer.source = LabelSource(context, plan.parts[path], self.config.routing, heads[path])
        for paths in self._router_groups(plan, heads):
            self._add_router(change, paths, heads[paths[0]])

    def _add_router(self, change: MixtureModel, paths: list[str], heads: int) -> None:
        first = change.mixture(paths[0])
        router = Router(
            read_linear_sizes(first.base)[0],
            heads,
            bias=self.config.router_bias,
            seed=change.plan.seed,
            path=paths[0],
            device=first.lora_B[0].device,
        )
        source_class = BlockSource if self.config.router == "block" else LearnedSource
        source = source_class(router, change.context, change.plan.parts[paths[0]], self.config)
        if isinstance(source, BlockSource):
            block = change.base.get_submodule(paths[0].rpartition(".")[0])
            change.keep(block.register_forward_pre_hook(source.hook, with_kwargs=True))
        first.router = router
        for path in paths:
            layer = change.mixture(path)
            layer.by, layer.source = "router", source


class MixtureModel(AdaptedModel):
    """A model whose linears have several heads."""

    def __init__(self, base: nn.Module, plan: AdapterPlan, context: BatchContext, method: MixtureMethod):
        super().__init__(base, plan, context)
        self.method = method

    def mixture(self, path: str) -> MixtureLinear:
        """Return the layer at ``path``."""
        layer = self.layers[path]
        assert isinstance(layer, MixtureLinear)
        return layer

    def extra_loss(self) -> Tensor | None:
        """Return the weighted load balance of the last forward, or None if there is none."""
        config, routed = self.method.config, self.context.routed
        if config.balance == "none" or not routed:
            return None
        balance = _balance_losses.mole_loss if config.balance == "mole" else _balance_losses.switch_loss
        return config.balance_weight * balance(routed, self.context)

    def save(self, folder: Path) -> None:
        """Write a folder that `marslora.attach` reads. If tasks choose the heads, ``tasks/`` has a plain LoRA folder
        for each task."""
        _own_folder.write(folder, self, self.method)
        if self.method.config.routing == "task":
            for index, task in enumerate(self.plan.tasks):
                self.save_plain(folder / "tasks" / _plain_folder.folder_name(task, index), task)


def _depths(plan: AdapterPlan) -> dict[str, float]:
    """Return the depth of every linear in its part's stack of layers: from 0 at the input to just below 1."""
    numbers = {path: int(match[1]) if (match := re.search(r"\.(\d+)\.", path)) else 0 for path in plan.parts}
    layers = {
        part: max(number for path, number in numbers.items() if plan.parts[path] == part) + 1
        for part in set(plan.parts.values())
    }
    return {path: numbers[path] / layers[part] for path, part in plan.parts.items()}
