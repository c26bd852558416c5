"""Find the configuration of a model folder, and the class that `transformers` builds from it."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
)

from marslora.core.errors import ModelError
from marslora.models.folders import resolve_path


def read_config(path: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The configuration in ``path``; `ModelError` if there is none that `transformers` knows."""
    try:
        return AutoConfig.from_pretrained(resolve_path(path), trust_remote_code=trust_remote_code)
    except ModelError:
        raise
    except Exception as error:  # the validator of every field has its own
        raise ModelError(
            f"The configuration of `{path}` cannot be read: {first_line(error)}. Name a folder that `transformers` can "
            "load, or a hub name that can be reached from here."
        ) from None


def find_model_class(config: PreTrainedConfig, path: str) -> type[PreTrainedModel]:
    """The multimodal class of a configuration; `ModelError` for a model that reads text only."""
    model_class = _find_mapped_class(config) or _find_named_class(config)
    if model_class is None or list_modalities(model_class) <= {"text"}:
        raise ModelError(
            f"`{path}` ({config.model_type}) is not multimodal: its model reads text only. "
            "Name a model that takes images or sound, e.g. a LLaVA, Qwen-VL or Qwen-Audio model."
        )
    return model_class


def list_modalities(model: Any) -> set[str]:
    """The modalities that a model (or its class) declares to read, e.g. ``{"image", "text"}``."""
    declared = model.input_modalities
    return {declared} if isinstance(declared, str) else set(declared or ())


def first_line(error: Exception) -> str:
    """The first line of an error's text, without its full stop."""
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")


def _find_mapped_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    for mapping in (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_FOR_MULTIMODAL_LM_MAPPING):
        if type(config) in mapping:
            classes: Any = mapping[type(config)]
            first: type[PreTrainedModel] = classes[0] if isinstance(classes, tuple) else classes
            return first
    return None


def _find_named_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    name = (config.architectures or [None])[0]
    known = getattr(transformers, name, None) if name else None
    return known if isinstance(known, type) and issubclass(known, PreTrainedModel) else None
