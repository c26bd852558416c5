"""Merge a trained adapter into its model: a whole checkpoint, whose logits are compared with the adapter's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from marslora.core.errors import ConfigError, StudyError
from marslora.core.files import explain_write_errors, replace_folder, temporary_path
from marslora.core.spec import DataSpec, ModelSpec
from marslora.data.rows import load_encoded_splits
from marslora.deployment.trained import TrainedStudy, find_trained
from marslora.methods import attach
from marslora.models.answers import Batch
from marslora.models.loading import LoadedModel, load_alone, resolve_dtype, skeleton
from marslora.models.quantization import dequantize, is_quantized
from marslora.report.model_card import write_card
from marslora.store.study import Study

CHECKED_ROWS = 4
"""Rows on which logits are compared."""
TOLERANCE = 1e-4
"""How far logits may differ that are equal but for the order of sums in float32, in standard deviations of the logits;
a convention: some twenty times what was seen."""
MOST_ROUNDING = 0.25
"""How far rounding the weights to half precision may move a logit; a convention. Seen: up to 0.1 in small models."""
FORMATS = (torch.float32, torch.float16, torch.bfloat16)
"""The number formats that models are saved in."""


class MergeCheck(NamedTuple):
    """How far the merged model, read back from its folder, is from the model with its adapter, both in float32."""

    largest_difference: float
    """The largest difference of two logits, in standard deviations of the logits."""
    same_tokens: float
    """Share of positions at which both find the same token the likeliest."""
    num_positions: int


def merge_study(
    folder: Path,
    out: Path,
    *,
    model: str | None = None,
    rows: str | None = None,
    dtype: str = "auto",
    device: str = "",
    task: str | None = None,
    licence: str | None = None,
    trust_remote_code: bool = False,
) -> MergeCheck:
    """Write model, processor and configuration of a study with its adapter merged into the folder ``out``.

    The adapter is added in float32; then weights are rounded to ``dtype`` (``auto``: that of the base's checkpoint).
    A quantised base becomes plain numbers first, those that its adapter was trained on: the result is not quantised.
    Logits on ``rows`` (by default the study's validation rows) must be those of the model with its adapter before the
    rounding, and those of the rounded model after it was written and loaded again. ``task`` chooses the change of an
    adapter that has one for each task. A model card says what the model is, under ``licence`` if it is given.

    Raises `ConfigError` for a folder that holds something, and for an adapter that cannot be merged; `StudyError`,
    after removing what was written, if the logits differ; `WriteError`; and what reading the rows raises.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"`{out}` exists already and nothing is overwritten. Name a folder that does not exist.")
    study = find_trained(folder, model=model, device=device, trust_remote_code=trust_remote_code)
    adapter = study.find_plain_adapter(task)
    saved_as = _find_dtype(study.model, dtype)
    loaded = _load_base(study.model)
    batch = _read_batch(study, rows, loaded.processor)
    adapted = attach(loaded.model, adapter, trust_remote_code=trust_remote_code)
    wanted = compute_logits(adapted, batch)
    if is_quantized(loaded.model):
        adapted = attach(dequantize(adapted.unload()), adapter, trust_remote_code=trust_remote_code)
        trained, wanted = wanted, compute_logits(adapted, batch)
        _check_dequantized(compare_logits(trained, wanted))
    merged = adapted.merge_and_unload(safe_merge=True)
    _check_equal(compare_logits(wanted, compute_logits(merged, batch)), "merging")
    temporary = temporary_path(out)
    try:
        with explain_write_errors(temporary):
            _convert_weights(merged, saved_as).save_pretrained(temporary)
            loaded.processor.save_pretrained(temporary)
        rounded = compute_logits(_convert_weights(merged, torch.float32), batch)
        del merged, adapted, loaded
        written = _read_logits(temporary, study.model, batch)
        _check_equal(compare_logits(rounded, written), "writing and loading")
        check = compare_logits(wanted, written)
        _check_rounding(check, saved_as)
        with Study.open(folder) as opened:
            write_card(opened, temporary, is_merged=True, licence=licence)
        replace_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return check


def _load_base(spec: ModelSpec) -> LoadedModel:
    """The base in float32, or quantised as the adapter was trained on it: from weights in the dtype of the study."""
    return load_alone(spec if spec.quantize else spec.model_copy(update={"dtype": "float32"}))


def _check_dequantized(check: MergeCheck) -> None:
    if not check.largest_difference <= MOST_ROUNDING:
        raise StudyError(
            "The weights of a quantised base, written out as plain numbers, do not compute what they did: logits "
            f"change by up to {check.largest_difference:.2g} standard deviations, more than {MOST_ROUNDING:g}. Nothing "
            "was kept. Use the adapter as it is, with `marslora.attach(model, folder)`."
        )


def compare_logits(wanted: Tensor, found: Tensor) -> MergeCheck:
    """Compare two sets of logits, (positions, tokens) each."""
    difference = (wanted - found).abs().max() / wanted.std()
    same = (wanted.argmax(-1) == found.argmax(-1)).float().mean()
    return MergeCheck(float(difference), float(same), len(wanted))


@torch.no_grad()
def compute_logits(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """(positions, tokens) logits of a batch at every position that is not padding, in float32 on the CPU."""
    model.eval()
    first = next(model.parameters())
    is_encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
    moved = Batch.of(batch, first.device, is_encoder_decoder=is_encoder_decoder)
    inputs = {
        name: value.to(first.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in moved.inputs.items()
    }
    logits_BTV: Tensor = model(**inputs).logits.float().cpu()
    mask = batch.get("attention_mask")
    if isinstance(mask, Tensor) and mask.shape == logits_BTV.shape[:2]:
        return logits_BTV[mask.bool()]
    return logits_BTV.flatten(0, 1)


def _find_dtype(spec: ModelSpec, name: str) -> torch.dtype:
    """The number format that the merged model is saved in."""
    if name != "auto":
        return resolve_dtype(name, torch.device("cpu"))
    found = skeleton(spec).config.dtype
    return found if found in FORMATS else torch.float32


def _read_batch(study: TrainedStudy, rows: str | None, processor: Any) -> dict[str, Any]:
    data = study.data if rows is None else DataSpec(train=(rows,), max_examples=2 * CHECKED_ROWS)
    encoded = load_encoded_splits(data, processor, str(study.folder / "cache"), splits=("validation",)).validation
    if not len(encoded):
        raise ConfigError(f"There is no validation row to compare logits on in {rows or study.folder}. Name more rows.")
    return encoded.batch(range(min(CHECKED_ROWS, len(encoded))))


def _convert_weights(model: Any, dtype: torch.dtype) -> Any:
    """The model with its parameters in ``dtype``; buffers that are not saved, such as frequencies, stay as they are."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _read_logits(folder: Path, spec: ModelSpec, batch: Mapping[str, Any]) -> Tensor:
    read = load_alone(spec.model_copy(update={"path": str(folder), "dtype": "float32", "quantize": None}))
    return compute_logits(read.model, batch)


def _check_equal(check: MergeCheck, what: str) -> None:
    if not check.largest_difference <= TOLERANCE:  # also if it is no number
        raise StudyError(
            f"The merged model does not compute what the adapter does: {what} changes logits by up to "
            f"{check.largest_difference:.2g} standard deviations, more than {TOLERANCE:g}. Nothing was kept. Use the "
            "adapter as it is, with `marslora.attach(model, folder)`."
        )


def _check_rounding(check: MergeCheck, dtype: torch.dtype) -> None:
    if not check.largest_difference <= MOST_ROUNDING:
        raise StudyError(
            f"Rounding the merged weights to {str(dtype).removeprefix('torch.')} changes logits by up to "
            f"{check.largest_difference:.2g} standard deviations, more than {MOST_ROUNDING:g}. Nothing was kept. Merge "
            "in float32 (--dtype float32), or use the adapter as it is."
        )
