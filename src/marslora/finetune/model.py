"""Adapt the model of a final run, by PEFT's LoRA or by another adapter or method, and build its optimizer."""

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
from marslora.core.linears import is_quantized
from marslora.core.patterns import lora_config_dict
from marslora.core.schedule import num_steps
from marslora.core.spec import FinalSpec, TrainingSpec
from marslora.data.rows import BatchSource, EncodedSplits
from marslora.finetune.evaluate import move_to_device
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


def make_lora_config(spec: FinalSpec) -> LoraConfig:
    """PEFT's settings for a final run. Raises `ConfigError` if the allocation adapts no linear layer."""
    ranks = {name: rank for name, rank in spec.module_ranks.items() if name not in spec.full_modules}
    if not ranks:
        raise ConfigError(
            f"The allocation {spec.allocation} adapts no linear layer. Give at least one part that is not in `full` "
            f"{list(spec.training.full)} a rank above 0."
        )
    return LoraConfig(
        **lora_config_dict(
            ranks,
            spec.training.alpha_over_rank,
            spec.full_modules,
            spec.training.dropout,
            stacked=spec.stacked,
            tokens=spec.token_indices,
            **spec.training.lora_variant,
        )
    )


def find_method(training: TrainingSpec) -> AbstractMethod | None:
    """The method that trains the adapter of ``training``; None for an adapter that PEFT itself trains.

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
    """Within it, the loaded model has a fresh adapter; afterwards it is as before, since other runs may share it."""
    base = loaded.model
    use_cache = getattr(base.config, "use_cache", None)
    change: AbstractChange | None = None
    try:
        change = _apply_lora(base, spec) if method is None else _apply_method(loaded, spec, method, rows, part_of)
        _set_recomputation(base, spec.training.gradient_checkpointing)
        yield change
    finally:
        if change is not None:
            change.remove()
        _set_recomputation(base, False)
        base.config.use_cache = use_cache
        base.requires_grad_(False).eval()


def _apply_lora(base: PreTrainedModel, spec: FinalSpec) -> PeftChange:
    whole = {path: base.get_submodule(path) for path in (*spec.full_modules, *spec.token_indices)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for `is_gradient_checkpointing` by its old name
        change = PeftChange(base, get_peft_model(base, make_lora_config(spec)), whole)
    for trainable in change.trainables():
        if trainable.role == "A":
            _draw_factor(trainable, spec.seed)
    return change


def _apply_method(
    loaded: LoadedModel,
    spec: FinalSpec,
    method: AbstractMethod,
    rows: EncodedSplits[BatchSource],
    part_of: Mapping[str, str],
) -> AbstractChange:
    training = spec.training
    if spec.start_folder is not None and not isinstance(method, PackedMethod):
        raise ConfigError(
            f"A run with the adapter `{training.adapter.name}` cannot continue the calibration run in `start_folder` "
            f"({spec.start_folder}), which trained plain LoRA. Leave `start_folder` out."
        )
    if spec.stacked:
        raise ConfigError(
            f"The adapter `{training.adapter.name}` cannot adapt stacked experts, found {len(spec.stacked)} parameters "
            "of them. Use the adapter `lora`, or leave `experts` out."
        )
    quantized = [path for path in spec.module_ranks if is_quantized(loaded.model.get_submodule(path))]
    if quantized and not method.takes_quantized:
        raise ConfigError(
            f"The adapter `{training.adapter.name}` needs weights that are plain numbers, but those of "
            f"`{quantized[0]}` and {len(quantized) - 1} more are quantised. Use the adapter `lora`, or load the model "
            "without `quantize`."
        )
    make_lora_config(spec)  # refuses an allocation without ranks
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
        return method.apply(loaded.model, plan, [move_to_device(batch, loaded.device) for batch in batches])


@torch.no_grad()
def _draw_factor(trainable: Trainable, seed: int) -> None:
    """Draw A as PEFT does, but with the random stream that a calibration run of this seed uses for this module."""
    drawn_RI = torch.empty(trainable.parameter.shape)
    init.kaiming_uniform_(drawn_RI, a=math.sqrt(5), generator=member_generator(seed, trainable.module, "lora_A"))
    trainable.parameter.copy_(drawn_RI)


def _set_recomputation(base: PreTrainedModel, wanted: bool) -> None:
    """Switch recomputation of activations on or off, by a name that `transformers` 5.23 deprecates but accepts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if wanted:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        elif base.is_gradient_checkpointing:
            base.gradient_checkpointing_disable()


def build_optimizer(change: AbstractChange, part_of: dict[str, str], spec: FinalSpec) -> AbstractOptimizer:
    """The optimizer that the spec names, with a parameter group for each part and role at its part's learning rate."""
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


def map_linears_to_parts(loaded: LoadedModel, spec: FinalSpec) -> dict[str, str]:
    """The part of every linear by module path; the model must not be adapted yet.

    Raises `ConfigError` if `part_learning_rates` names a part that the model does not have.
    """
    info = discover(loaded.model, experts=spec.model.experts)
    known = [part.name for part in info.parts]
    unknown = sorted(set(spec.training.part_learning_rates) - set(known))
    if unknown:
        raise ConfigError(
            f"`part_learning_rates` must name parts of {info.architecture}, which are {known}; found {unknown}. Rename "
            "or remove these."
        )
    return dict(info.part_of())
