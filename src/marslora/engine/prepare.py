"""Read and check everything before any training: the parts of the model, its dead layers, every row of data."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Collection
from pathlib import Path

import peft
import torch
import transformers

from marslora.core.errors import MarsloraError
from marslora.core.files import write_text
from marslora.core.out_of_memory import explain_out_of_memory
from marslora.core.parts import ModelInfo
from marslora.core.record import digest_texts
from marslora.core.runs import DataSummary, Emit, Failure, Prepared, ProgressEvent
from marslora.core.spec import ModelSpec, PrepareSpec
from marslora.data import rows as data_rows
from marslora.data.encode import EncodedRows
from marslora.data.rows import EncodedSplits, Split, load_encoded_splits
from marslora.engine.cost import CostMeter
from marslora.engine.flops import count_flops
from marslora.models import loading
from marslora.models.discovery import discover
from marslora.models.folders import fingerprint_model_files
from marslora.models.loading import LoadedModel
from marslora.models.precision import mixed_precision
from marslora.models.probe import probe
from marslora.models.tokens import find_fresh_rows
from marslora.optim import check_optimizer

PROBE_ROWS = 4
"""Rows of the batch that a model is probed with: enough to have every modality (see `EncodedRows.pick_varied`), small
enough for a large model."""


def prepare(spec: PrepareSpec, emit: Emit) -> None:
    """Load the model, find its parts and dead layers, read and encode every row; emit a `Prepared` or a `Failure`."""
    try:
        with explain_out_of_memory("the model was loaded and the rows were read"):
            emit(_prepare(spec, emit))
    except MarsloraError as error:
        emit(Failure.of(spec, error))


def _prepare(spec: PrepareSpec, emit: Emit) -> Prepared:
    check_optimizer(spec.optimizer)
    meter = CostMeter()
    loaded = loading.load(spec.model)

    def report_progress(split: Split, done: int, total: int) -> None:
        emit(ProgressEvent(task=f"{'training' if split == 'train' else split} rows", done=done, total=total))

    rows = load_encoded_splits(spec.data, loaded.processor, spec.cache_folder, progress=report_progress)
    info, flops = count_flops(lambda: probe_parts(spec.model, loaded, rows, spec.cache_folder))
    meter.add_flops(flops)
    warnings = (
        *loaded.warnings,
        *info.warnings,
        *warn_of_fresh_tokens(loaded, rows, spec.token_indices),
        *data_rows.list_warnings(rows),
    )
    return Prepared(
        info=info.model_copy(update={"warnings": warnings}),
        data=_summarise_rows(rows),
        device=str(loaded.device),
        model_fingerprint=fingerprint_model_files(spec.model.path),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
        cost=meter.take(),
    )


def warn_of_fresh_tokens(
    loaded: LoadedModel, rows: EncodedSplits[EncodedRows], trained: Collection[int] = ()
) -> list[str]:
    """A warning about tokens of the training rows whose embeddings were never trained; none if there are none.

    Those that are ``trained`` now are left out.
    """
    tokenizer = loaded.processor.tokenizer
    used = set(rows.train.used_tokens.tolist()) - set(trained)
    fresh = find_fresh_rows(loaded.model, used, set(tokenizer.added_tokens_decoder))
    if not fresh:
        return []
    named = ", ".join(f"{tokenizer.convert_ids_to_tokens(each)!r} ({each})" for each in fresh[:5])
    more = f" and {len(fresh) - 5} more" if len(fresh) > 5 else ""
    return [
        f"The rows use {len(fresh)} tokens whose embeddings were never trained, and LoRA leaves them so: {named}{more}."
        f" Train them too: --trainable-token-indices {','.join(map(str, fresh))}"
    ]


def _summarise_rows(rows: EncodedSplits[EncodedRows]) -> DataSummary:
    refused = data_rows.list_refused_rows(rows)
    return DataSummary(
        num_train=len(rows.train),
        num_validation=len(rows.validation),
        num_test=len(rows.test),
        num_bad=rows.report.num_bad + len(refused),
        bad_rows=tuple(str(row) for row in [*rows.report.bad, *refused][:20]),
        answer_tokens=float(rows.train.num_answer_tokens.mean()),
        tokens=float(rows.train.num_tokens.mean()),
        fingerprint=rows.report.fingerprint,
    )


def probe_parts(
    model: ModelSpec, loaded: LoadedModel, rows: EncodedSplits[EncodedRows], cache_folder: str
) -> ModelInfo:
    """The model's parts, with the layers marked that no gradient reaches on `PROBE_ROWS` rows that have
    every kind of picture and sound that the training rows have.

    All workers of a study must see the same parts, so the result is kept in ``cache_folder``.
    """
    path = Path(cache_folder) / f"parts-{digest_texts(model.digest(), rows.train.digest)}.json"
    if path.exists():
        with contextlib.suppress(OSError, ValueError):  # a damaged file is made again
            return ModelInfo.load(path)
    batch = rows.train.batch(rows.train.pick_varied(PROBE_ROWS))
    moved = {name: value.to(loaded.device) for name, value in batch.items()}
    with mixed_precision(loaded.device, loaded.dtype):
        info = probe(loaded.model, moved, discover(loaded.model, model.targets, experts=model.experts))
    write_text(path, info.to_json())
    return info
