"""Load a multimodal model and its processor, frozen, once per process."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils.logging import disable_progress_bar

from marslora.core.data_files import stamp_model
from marslora.core.errors import ConfigError, ModelError
from marslora.core.packs import WORKER
from marslora.core.parts import ModelInfo
from marslora.core.spec import ModelSpec
from marslora.core.vocabulary import note_vocabulary
from marslora.models import _checkpoint, _weights, attention, quantization, tokens
from marslora.models._classes import find_model_class, first_line, list_modalities, read_config
from marslora.models._constants import check_constants
from marslora.models.discovery import discover
from marslora.models.folders import MEMORY, resolve_path

MOST_LOADED = 2
"""How many models stay loaded: a study uses one, a comparison with a converted copy two; more could fill the memory."""
_loaded: OrderedDict[str, LoadedModel] = OrderedDict()
"""The models loaded last, by `_cache_key`: packs and stages of one process share them. The oldest is dropped when there
are more than `MOST_LOADED`."""
_registered: dict[str, tuple[nn.Module, Any]] = {}
"""(model, processor) by name, from `register_model`: specifications hold strings only. Kept until the process ends,
since a study may be continued at any time; registering a name again replaces its entry."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be adapted: every parameter frozen, eval mode (so the base has no dropout)."""

    model: PreTrainedModel
    processor: Any
    device: torch.device
    dtype: torch.dtype
    warnings: tuple[str, ...] = ()
    """What its checkpoint holds that the model does not use, each with a remedy."""


def register_model(name: str, model: nn.Module, processor: Any) -> str:
    """Register a model in memory and its processor; the returned ``memory:NAME`` is a model path in this process."""
    _registered[name] = (model, processor)
    return MEMORY + name


def fingerprint_model(model: Any, processor: Any = None) -> str:
    """16 hex digits that tell models in memory apart: of all weights, the configuration and the processor.

    Of each weight its bits are summed over rows and over columns, which any change alters, on the weight's device.
    """
    digest = hashlib.sha256()
    config: Any = getattr(model, "config", None)
    digest.update(config.to_json_string(use_diff=False).encode() if hasattr(config, "to_json_string") else b"")
    if processor is not None:
        digest.update(json.dumps(processor.to_dict(), sort_keys=True, default=str).encode())
        digest.update(repr(processor.chat_template or processor.tokenizer.chat_template).encode())
        digest.update(repr(sorted(processor.tokenizer.get_vocab().items())).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        if isinstance(tensor, torch.Tensor) and tensor.numel() and not tensor.is_meta:
            for sums in _sum_bits(tensor.detach()):
                digest.update(sums.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _sum_bits(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The bits of a tensor as whole numbers, summed over its rows and over its columns."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
    bits = tensor.contiguous().view(whole)
    matrix = bits.reshape(-1, bits.shape[-1]) if bits.ndim else bits.reshape(1, 1)
    return matrix.sum(0, dtype=torch.int64), matrix.sum(1, dtype=torch.int64)


def load(spec: ModelSpec) -> LoadedModel:
    """The model and processor of ``spec``; loading one of the last two again returns the same object.

    A registered model stays on its device and in its dtype if the spec says ``auto``.
    Raises `ModelError` for a missing folder, a folder without a model, a model that is not multimodal, a missing
    processor, a processor whose package is not installed, and for weights that are missing, of another shape, without a
    place in the model, not finite, or quantised in a way that the configuration does not say.
    """
    if spec.path.startswith(MEMORY):
        return _load_registered(spec)
    key = _cache_key(spec)
    if key not in _loaded:
        _loaded[key] = _load_folder(spec)
        while len(_loaded) > MOST_LOADED:
            _loaded.popitem(last=False)
    _loaded.move_to_end(key)
    return _loaded[key]


def load_alone(spec: ModelSpec) -> LoadedModel:
    """As `load`, but nobody shares the model, so that its weights may be changed: loaded anew, or copied in memory."""
    if not spec.path.startswith(MEMORY):
        return _load_folder(spec)
    registered = _load_registered(spec.model_copy(update={"device": "auto", "dtype": "auto"}))
    model: Any = copy.deepcopy(registered.model)
    device = registered.device if spec.device == "auto" else resolve_device(spec.device)
    dtype = registered.dtype if spec.dtype == "auto" else resolve_dtype(spec.dtype, device)
    if not quantization.is_quantized(model):
        model.to(device, dtype)
    return LoadedModel(model, registered.processor, device, dtype)


def describe(spec: ModelSpec) -> ModelInfo:
    """The parts of ``spec``'s model from its configuration alone: no weights are read, nothing is allocated."""
    if spec.path.startswith(MEMORY):
        return discover(_find_registered(spec.path)[0], targets=spec.targets, experts=spec.experts)
    return discover(skeleton(spec), targets=spec.targets, experts=spec.experts)


def skeleton(spec: ModelSpec) -> PreTrainedModel:
    """The model of ``spec`` on the meta device: all its modules, none of its weights."""
    config = read_config(spec.path, spec.trust_remote_code)
    with torch.device("meta"):
        return find_model_class(config, spec.path)(config)


def load_processor(spec: ModelSpec) -> Any:
    """The processor of ``spec``, without its model. It knows which tokens the model can read (`read_vocabulary`)."""
    if spec.path.startswith(MEMORY):
        model, processor = _find_registered(spec.path)
        note_vocabulary(processor, tokens.vocabulary_of_model(model))
        return processor
    try:
        processor = AutoProcessor.from_pretrained(resolve_path(spec.path), trust_remote_code=spec.trust_remote_code)
    except ImportError as error:
        raise ModelError(_describe_missing_package(spec.path, error)) from None
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ModelError):
            raise
        if "torchvision" in str(error):  # installed for another torch, its operators are missing
            raise ModelError(_describe_missing_package(spec.path, error)) from None
        raise ModelError(f"`{spec.path}` must have a processor: {first_line(error)}. {_PROCESSOR_HELP}") from None
    if not isinstance(processor, ProcessorMixin):
        raise ModelError(f"`{spec.path}` must have a processor, found a {type(processor).__name__}. {_PROCESSOR_HELP}")
    note_vocabulary(processor, tokens.read_vocabulary_of(read_config(spec.path, spec.trust_remote_code)))
    return processor


_PROCESSOR_HELP = "Save it in the model's folder: AutoProcessor.from_pretrained(ORIGINAL).save_pretrained(FOLDER)."
"""How to add a processor that is missing."""


def check_device(name: str) -> None:
    """Raise `ConfigError` for what is not the name of a device, whether or not there is one."""
    try:
        torch.device("cpu" if name == "auto" else name)
    except RuntimeError as error:
        raise _device_error(name, first_line(error)) from None


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is CUDA if there is a CUDA device, which workers use in turn.

    Raises `ConfigError` for a device that does not exist here.
    """
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        return _named_device(name)
    worker = os.environ.get(WORKER)
    return torch.device("cuda" if worker is None else f"cuda:{int(worker) % torch.cuda.device_count()}")


def _named_device(name: str) -> torch.device:
    problem = ""
    try:
        device = torch.device(name)
        if device.type != "cuda":
            torch.empty(0, device=device)
        elif (device.index or 0) >= (
            count := torch.cuda.device_count()
        ):  # trying it would take memory on the first GPU
            problem = f"torch sees {count} CUDA devices"
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        problem = first_line(error)
    if problem:
        raise _device_error(name, problem)
    return device


def _device_error(name: str, problem: str) -> ConfigError:
    return ConfigError(
        f"`device` {name!r} cannot be used: {problem}. Name an existing one (cpu, cuda, cuda:1), or leave it out."
    )


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype called ``name``; ``auto`` is bfloat16 on a CUDA device with bfloat16 in hardware, else float32.

    On a CPU it stays float32 even where there are instructions for bfloat16: what a study finds must not depend on the
    processor that happens to run it.
    """
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _load_folder(spec: ModelSpec) -> LoadedModel:
    device = resolve_device(spec.device)
    dtype = resolve_dtype(spec.dtype, device)
    config = read_config(spec.path, spec.trust_remote_code)
    model_class = find_model_class(config, spec.path)
    processor = load_processor(spec)
    how = quantization.find_arguments(spec, config, lambda: skeleton(spec), device, dtype)
    how |= attention.find_arguments(spec, config, model_class, device, dtype)
    attention.prefer_products(device, dtype)
    model, warnings = _load_weights(model_class, config, spec, {"dtype": dtype, **how})
    quantization.keep_layout(model)
    if not quantization.is_quantized(model):
        model.to(device)
    return LoadedModel(_freeze(model), processor, device, dtype, warnings)


def _load_weights(
    model_class: type[PreTrainedModel], config: Any, spec: ModelSpec, how: dict[str, Any]
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The model, on the CPU unless ``how`` says where, every weight checked, and what its checkpoint holds besides."""
    folder = _checkpoint.find_model_folder(spec.path)
    if folder:
        _checkpoint.check_files(folder)
        _weights.check_types(folder, config)
    disable_progress_bar()  # a study shows its own
    with _weights.keep_log() as log:
        try:
            model, report = model_class.from_pretrained(
                resolve_path(spec.path),
                config=config,
                **how,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report, which names them
            )
        except ImportError as error:
            raise ModelError(_describe_missing_package(spec.path, error)) from None
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            reason = _weights.name_unconverted(log) or first_line(error)
            raise ModelError(
                f"The weights of `{spec.path}` cannot be loaded: {reason}. Download or save the model again."
            ) from None
    warnings = _weights.check_report(model, report, spec.path)
    _weights.check_numbers(model, spec.path, folder or _checkpoint.find_model_folder(spec.path))
    return model, (*warnings, *check_constants(model, spec.path))


def _load_registered(spec: ModelSpec) -> LoadedModel:
    model, processor = _find_registered(spec.path)[0], load_processor(spec)
    if list_modalities(model) <= {"text"}:
        raise ModelError(
            f"`{spec.path}` ({type(model).__name__}) must be multimodal, but reads text only. Register a model "
            "that takes images or sound."
        )
    quantization.refuse_in_memory(spec)
    if spec.device != "auto":
        model.to(resolve_device(spec.device))
    if spec.dtype != "auto" and not quantization.is_quantized(model):
        model.to(getattr(torch, spec.dtype))
    _weights.check_numbers(model, spec.path, None)
    warnings = check_constants(model, spec.path)
    quantization.keep_layout(model)
    first = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    attention.set_attention(model, spec, first.device, first.dtype)
    attention.prefer_products(first.device, first.dtype)
    return LoadedModel(_freeze(model), processor, first.device, first.dtype, warnings)


def _find_registered(path: str) -> tuple[Any, Any]:
    name = path.removeprefix(MEMORY)
    if name not in _registered:
        raise ModelError(
            f"Model `{path}` must be registered in this process, but only {sorted(_registered)} are. Register it "
            "first, with `marslora.models.loading.register_model`."
        )
    return _registered[name]


def _freeze(model: Any) -> Any:
    return model.requires_grad_(False).eval()


def _describe_missing_package(path: str, error: Exception) -> str:
    text = str(error)
    if "torchvision" in text.lower():
        return (
            f"`{path}` has a processor that needs torchvision, in the version that fits torch {torch.__version__} "
            f"({first_line(error)}). Run: pip install 'marslora[vision]'; if torch came from an index of its own, "
            "install torchvision from the same one."
        )
    named = re.search(r"pip install `?(?:-\S+ )*`?([\w.-]+)", text)
    package = named.group(1) if named else getattr(error, "name", None)
    fix = f"Run: pip install {package}" if package else first_line(error)
    return f"`{path}` needs a package that is not installed. {fix}"


def _cache_key(spec: ModelSpec) -> str:
    """A key that changes with the model and the files it is loaded from, but not with what is adapted."""
    return f"{spec.model_copy(update={'targets': None, 'experts': False}).digest()} {stamp_model(spec.path)}"
