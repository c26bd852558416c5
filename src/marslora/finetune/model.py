"""The model of a final run: PEFT's LoRA, or another method of `marslora.adapters`, and its optimizer."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import Parameter, init
from transformers import PreTrainedModel

from marslora.adapters import member_generator
from marslora.core.errors import ConfigError
from marslora.core.patterns import lora_config_dict
from marslora.core.schedule import num_steps
from marslora.core.spec import FinalSpec, TrainingSpec
from marslora.data.rows import BatchSource, EncodedSplits
from marslora.finetune.evaluate import to_device
from marslora.methods import (
    AbstractChange,
    AbstractMethod,
    AdapterPlan,
    PackedMethod,
    PeftChange,
    Trainable,
    make_method,
)
from marslora.models.discovery import discover
from marslora.models.loading import LoadedModel
from marslora.models.precision import mixed_precision
from marslora.optim import AbstractOptimizer, create_optimizer


def lora_config(spec: FinalSpec) -> LoraConfig:
    """PEFT's settings for a final run."""
    ranks = {name: rank for name, rank in spec.module_ranks.items() if name not in spec.full_modules}
    if not ranks:
        raise ConfigError(
            f"The allocation {spec.allocation} adapts no linear layer. At least one part that is not in `full` "
            f"{list(spec.training.full)} must have a rank above 0."
        )
    return LoraConfig(
        **lora_config_dict(
            ranks,
            spec.training.alpha_over_rank,
            spec.full_modules,
            spec.training.dropout,
            stacked=spec.stacked,
            **spec.training.lora_variant,
        )
    )


def method_of(training: TrainingSpec) -> AbstractMethod | None:
    """Return the method that trains the spec's adapter; None for an adapter that PEFT itself trains.

    Raises `ConfigError` for an adapter or an option that does not exist.
    """
    method = make_method(training.adapter)
    return None if isinstance(method, PackedMethod) and method.adapter_class.trained_by_peft else method


@contextlib.contextmanager
def adapt_model(
    loaded: LoadedModel,
    spec: FinalSpec,
    method: AbstractMethod | None,
    rows: EncodedSplits[BatchSource],
    part_of: Mapping[str, str],
) -> Iterator[AbstractChange]:
    """The loaded model with a fresh adapter; afterwards it is what it was, since others may hold it."""
    base = loaded.model
    use_cache = getattr(base.config, "use_cache", None)
    change: AbstractChange | None = None
    try:
        change = _lora(base, spec) if method is None else _apply(loaded, spec, method, rows, part_of)
        _recompute(base, spec.training.gradient_checkpointing)
        yield change
    finally:
        if change is not None:
            change.remove()
        _recompute(base, False)
        base.config.use_cache = use_cache
        base.requires_grad_(False).eval()


def _lora(base: PreTrainedModel, spec: FinalSpec) -> PeftChange:
    whole = {path: base.get_submodule(path) for path in spec.full_modules}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for `is_gradient_checkpointing` by its old name
        change = PeftChange(base, get_peft_model(base, lora_config(spec)), whole)
    for trainable in change.trainables():
        if trainable.role == "A":
            _draw(trainable, spec.seed)
    return change


def _apply(
    loaded: LoadedModel,
    spec: FinalSpec,
    method: AbstractMethod,
    rows: EncodedSplits[BatchSource],
    part_of: Mapping[str, str],
) -> AbstractChange:
    training = spec.training
    if spec.start_folder is not None and not isinstance(method, PackedMethod):
        raise ConfigError(
            f"A run with the adapter `{training.adapter.name}` cannot continue `start_folder`: a calibration run holds "
            "plain LoRA. Leave it out."
        )
    if spec.stacked:
        raise ConfigError(
            f"The adapter `{training.adapter.name}` cannot adapt stacked experts. Use `lora`, or leave `experts` out."
        )
    lora_config(spec)  # refuses an allocation without ranks
    ranks = {path: rank for path, rank in spec.module_ranks.items() if path not in spec.full_modules}
    plan = AdapterPlan(
        ranks=ranks,
        parts={path: part_of.get(path, "") for path in (*ranks, *spec.full_modules)},
        full_modules=spec.full_modules,
        scale=training.alpha_over_rank,
        dropout=training.dropout,
        seed=spec.seed,
        num_steps=num_steps(spec.full_examples, training.batch_size),
        tasks=rows.tasks,
    )
    batches = rows.first_batches(method.num_batches, training.batch_size // training.accumulation)
    with mixed_precision(loaded.device, loaded.dtype):
        return method.apply(loaded.model, plan, [to_device(batch, loaded.device) for batch in batches])


@torch.no_grad()
def _draw(trainable: Trainable, seed: int) -> None:
    """Draw A as PEFT does, but from the stream that a calibration run of this seed has for this module."""
    drawn_RI = torch.empty(trainable.parameter.shape)
    init.kaiming_uniform_(drawn_RI, a=math.sqrt(5), generator=member_generator(seed, trainable.module, "lora_A"))
    trainable.parameter.copy_(drawn_RI)


def _recompute(base: PreTrainedModel, wanted: bool) -> None:
    """Switch recomputation of activations, under the name it had in `transformers` before 5.23, which still works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if wanted:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        elif base.is_gradient_checkpointing:
            base.gradient_checkpointing_disable()


def build_optimizer(change: AbstractChange, part_of: dict[str, str], spec: FinalSpec) -> AbstractOptimizer:
    """The optimizer that the spec names, with one group per part and role, each with its part's learning rate."""
    training = spec.training
    groups: dict[tuple[str, str, tuple[int, ...] | None], list[Parameter]] = defaultdict(list)
    for trainable in change.trainables():
        part = part_of.get(trainable.module.removesuffix(".base_layer"), "")
        groups[part, trainable.role, trainable.ranks].append(trainable.parameter)
    return create_optimizer(
        training,
        [
            {
                "params": parameters,
                "part": part,
                "role": role,
                "lr": training.rate_of(part),
                **({"members": change.num_members, "ranks": ranks} if change.num_members else {}),
            }
            for (part, role, ranks), parameters in groups.items()
        ],
    )


def part_of_linears(loaded: LoadedModel, spec: FinalSpec) -> dict[str, str]:
    """Return the part of every linear of a model that is not adapted yet, by module path.

    Raises `ConfigError` if `part_learning_rates` names a part that the model does not have.
    """
    info = discover(loaded.model, experts=spec.model.experts)
    known = [part.name for part in info.parts]
    unknown = sorted(set(spec.training.part_learning_rates) - set(known))
    if unknown:
        raise ConfigError(
            f"`part_learning_rates` must name parts of {info.architecture}, which are {known}; found {unknown}."
        )
    return dict(info.part_of())
