"""The model card of a trained adapter, or of the model that it was merged into: what it is, and how to load it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from marslora.core.data_files import MEMORY, parse_source
from marslora.core.files import write_text
from marslora.core.runs import MetricResult
from marslora.report.data import ReportData, gather_data
from marslora.report.numbers import abbreviate_count, format_accuracy, format_count, format_loss, format_number
from marslora.store.study import Study

NAME = "README.md"
"""The hub's name for the card in a model's folder."""
UNKNOWN = "unknown"
"""The hub's word for a licence that nobody stated."""
PLACEHOLDER = "THIS_FOLDER"
"""What the code of a card loads, until the folder has a name on the hub."""
PIPELINES = {"image": "image-text-to-text", "audio": "audio-text-to-text"}
"""The hub's name for what a model does, by what it reads besides text."""
PACKAGES = ("transformers", "peft", "torch")
"""The packages that loading needs, whose versions the card states."""


def write_card(study: Study, folder: Path, *, is_merged: bool = False, licence: str | None = None) -> Path:
    """Write the card into ``folder``, which holds the adapter or (``is_merged``) the merged model; return its path.

    Raises `StudyError` if the study has no decision, and `WriteError`.
    """
    path = folder / NAME
    write_text(path, str(make_card(gather_data(study, runs=()), is_merged=is_merged, licence=licence)))
    return path


def make_card(data: ReportData, *, is_merged: bool = False, licence: str | None = None) -> ModelCard:
    """The card of a study with a final run. It names the base by its hub name, or by the name of its folder.

    ``licence`` is an identifier of the hub, such as ``apache-2.0``; by default that of the base's own card.
    """
    is_peft = data.spec.training.adapter.name == "lora"
    header = ModelCardData(
        base_model=None if is_local(data.spec.model.path) else data.spec.model.path,
        library_name="transformers" if is_merged else "peft" if is_peft else None,
        license=licence or read_licence(data.spec.model.path),
        pipeline_tag=next((PIPELINES[each] for each in PIPELINES if each in data.info.modalities), None),
        tags=["lora", "marslora"],
    )
    parts = [_describe(data, is_merged), _table_ranks(data), _describe_training(data), _table_losses(data)]
    parts += [_describe_loading(data, is_merged), _describe_licence(data, header.license)]
    return ModelCard(f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n")


def is_local(path: str) -> bool:
    """Whether the model ``path`` is a folder or in memory, and not on the hub."""
    return path.startswith(MEMORY) or Path(path).expanduser().is_dir() or Path(path).is_absolute()


def name_model(path: str) -> str:
    """The name of the model ``path`` on the hub, or that of its folder, without its place."""
    return Path(path.removeprefix(MEMORY)).name if is_local(path) else path


def read_licence(model: str) -> str:
    """The licence that the card in a model's folder states; ``unknown`` if there is none."""
    card = Path(model).expanduser() / NAME
    if not card.is_file():
        return UNKNOWN
    stated = getattr(ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data, "license", None)
    return stated if isinstance(stated, str) and stated else UNKNOWN


def _describe(data: ReportData, is_merged: bool) -> str:
    name = name_model(data.spec.model.path)
    what = "with a LoRA adapter merged into its weights" if is_merged else "and this is an adapter for it"
    base = f"`{name}` ({data.info.architecture})"
    title = f"# {name}, fine-tuned"
    return (
        f"{title}\n\nThe base model is {base}, {what}. The ranks and the learning rate were chosen by marslora: "
        f"{data.decision.summary}"
    )


def _table_ranks(data: ReportData) -> str:
    training = data.decision.setting.apply_to(data.spec.training)
    rows = []
    for part, rank in data.decision.chosen.ranks:
        is_whole = part in training.full
        rate = f"{training.rate_of(part):.2g}" if rank or is_whole else "-"
        rows.append(f"| {part} | {'trained whole' if is_whole else rank or 'not trained'} | {rate} |")
    final = data.final
    size = f"\n\n{abbreviate_count(final.num_trainable)} parameters were trained." if final else ""
    return "## Ranks\n\n| part | rank | learning rate |\n|---|---|---|\n" + "\n".join(rows) + size


def _describe_training(data: ReportData) -> str:
    training, rows = data.spec.training, data.summary
    counted = (
        f"{format_count(rows.num_train)} training, {format_count(rows.num_validation)} validation and "
        f"{format_count(rows.num_test)} test rows"
        if rows
        else "rows"
    )
    sources = ", ".join(f"`{name}`" for name in name_sources((*data.spec.data.train, *data.spec.data.validation)))
    versions = ", ".join(f"{name} {data.versions[name]}" for name in PACKAGES if name in data.versions)
    return (
        f"## Training\n\n{counted} of {sources}; {format_count(data.full_examples)} examples in batches of "
        f"{training.batch_size}; optimizer {training.optimizer.name}, alpha / rank {training.alpha_over_rank:g}, "
        f"adapter {training.adapter}. Made with {versions or 'versions that were not recorded'}."
    )


def name_sources(sources: Sequence[str]) -> list[str]:
    """The names of data files and of entries in registries, without their folders; rows in memory by their name."""
    named = []
    for source in sources:
        path, entry = (Path(source), None) if source.startswith(MEMORY) else parse_source(source)
        named.append(entry or path.name.removeprefix(MEMORY))
    return list(dict.fromkeys(named))


def _table_losses(data: ReportData) -> str:
    final = data.final
    if final is None:
        return ""
    splits = [("validation", final.base_validation_loss, final.validation_loss, final.validation_accuracy)]
    if final.test_loss is not None and final.base_test_loss is not None:
        splits.append(("test", final.base_test_loss, final.test_loss, final.test_accuracy or 0.0))
    rows = (
        f"| {split} | {format_loss(before)} | {format_loss(after)} | {format_accuracy(right).replace(chr(160), ' ')} |"
        for split, before, after, right in splits
    )
    return (
        "## Results\n\nLosses are in nats per answer token.\n\n| rows | loss before | loss after | answer tokens right "
        "after |\n|---|---|---|---|\n" + "\n".join(rows) + _table_metric(final.metric)
    )


def _table_metric(metric: MetricResult | None) -> str:
    if metric is None:
        return ""
    splits = [("validation", metric.base_validation, metric.validation), ("test", metric.base_test, metric.test)]
    rows = (
        f"| {split} | {format_number(before)} | {format_number(after)} |"
        for split, before, after in splits
        if after is not None
    )
    head = f"| rows | {metric.name} before | {metric.name} after |\n|---|---|---|\n"
    return "\n\nOf generated answers:\n\n" + head + "\n".join(rows)


def _describe_loading(data: ReportData, is_merged: bool) -> str:
    base = name_model(data.spec.model.path)
    if is_merged:
        code = (
            "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
            f'model = AutoModelForImageTextToText.from_pretrained("{PLACEHOLDER}")\n'
            f'processor = AutoProcessor.from_pretrained("{PLACEHOLDER}")'
        )
    else:
        is_peft = data.final is None or (Path(data.final.adapter_folder) / "adapter_config.json").exists()
        attach = (
            f'PeftModel.from_pretrained(model, "{PLACEHOLDER}")'
            if is_peft
            else f'marslora.attach(model, "{PLACEHOLDER}")'
        )
        source = "from peft import PeftModel" if is_peft else "import marslora"
        code = (
            f"{source}\nfrom transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
            f'model = AutoModelForImageTextToText.from_pretrained("{base}")\n'
            f"model = {attach}\n"
            f'processor = AutoProcessor.from_pretrained("{base}")'
        )
    if "image" not in data.info.modalities:
        code = code.replace("AutoModelForImageTextToText", "AutoModelForMultimodalLM")
    return f"## How to load it\n\n```python\n{code}\n```"


def _describe_licence(data: ReportData, licence: str | None) -> str:
    if licence != UNKNOWN:
        return ""
    base = name_model(data.spec.model.path)
    return (
        f"## Licence\n\nThe licence is not stated. That of the base model, {base}, applies to what was made "
        "from it; state it in the first lines of this card."
    )
