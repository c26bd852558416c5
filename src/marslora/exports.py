"""Write the decision of a study as settings of other tools, with its rows in the layouts of these tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marslora import exporters
from marslora.core import plugins
from marslora.core.decision import DecisionRecord
from marslora.core.errors import StudyError
from marslora.core.exported_run import ExportedRun, locate_model
from marslora.core.files import explain_write_errors
from marslora.core.runs import Prepared
from marslora.core.schedule import full_examples
from marslora.core.spec import FinalSpec, PluginSpec, RowsSpec, TrainingSpec
from marslora.executors.inline import Inline
from marslora.exporters import AbstractExporter
from marslora.store.study import Study

WRITE_ROWS = "marslora.data.export:write_rows"


def export_decision(
    study: Study, names: Sequence[str] = (), out: Path | None = None, *, with_rows: bool = False
) -> list[Path]:
    """Write a study's decision as settings of other tools, all by default; the files to read.

    They go to the folder NAME of ``out``, which is ``exports`` of the study by default; ``with_rows`` also the rows
    that the settings name. Raises `StudyError` if the study has no decision yet, `WriteError` if they cannot be
    written, and what reading the rows raises.
    """
    decision, prepared = study.read("decision.json", DecisionRecord), study.read("prepared.json", Prepared)
    if decision is None or prepared is None:
        raise StudyError(f"{study.folder} has no decision yet. Run its search again; it continues where it stopped.")
    final = study.read_full_run("final")
    adapter = Path(final.adapter_folder) if final else None
    run, parent = describe_run(study, prepared), out or study.path("exports")
    written: list[Path] = []
    folders: list[tuple[str, str]] = []
    for spec in map(PluginSpec.parse, names or plugins.names(exporters)):
        exporter = plugins.load(exporters, spec.name, AbstractExporter)(**spec.options)
        output = parent / spec.name.replace(":", ".")
        with explain_write_errors(output):
            written += exporter.export(decision, prepared.info, run, adapter, output)
        if exporter.layout is not None:
            folders.append((str(output), exporter.layout))
    if with_rows and folders:
        request = RowsSpec(data=study.spec.data, folders=tuple(folders), media_folder=str(parent / "media"))
        Inline().run(WRITE_ROWS, [request], lambda _: None)
    return written


def describe_run(study: Study, prepared: Prepared) -> ExportedRun:
    """The final run as it was planned, or would be."""
    spec = study.spec
    planned = study.read("plan/final.json", FinalSpec)
    return ExportedRun(
        **{name: getattr(spec.training, name) for name in TrainingSpec.model_fields},
        num_examples=full_examples(spec.training, prepared.data.num_train),
        model=locate_model(spec.model.path),
        seed=planned.seed if planned else spec.search.seed,
        max_length=spec.data.max_length,
        num_validation=prepared.data.num_validation,
        quantize=spec.model.quantize,
    )
