"""Write a decision as the settings of other training tools, with one plugin for each tool.

``marslora export STUDY --to axolotl`` writes those of one tool, without ``--to`` those of all, to ``STUDY/exports``.
Tools that read rank patterns (PEFT, TRL, Axolotl, Unsloth) get the ranks as settings. LLaMA-Factory and ms-swift have
one rank for the whole model, so they get an untrained adapter folder with the chosen ranks, which they continue.
vLLM gets the command that serves the trained adapter. Where a tool takes a learning rate it gets the chosen one. The
first lines of each file name the choice, the tool's version, and whether the file was run with that version.

An exporter is a class with one method, `AbstractExporter.export`. This one writes only the ranks::

    import json
    from marslora.exporters import AbstractExporter

    class RanksOnly(AbstractExporter):
        def export(self, decision, info, training, adapter_folder, output):
            output.mkdir(parents=True, exist_ok=True)
            path = output / "ranks.json"
            path.write_text(json.dumps(decision.chosen.as_dict()) + "\\n")
            return [path]

A file in this folder that holds such a class is listed by ``marslora list``; one from elsewhere is named
``package.module:RanksOnly``. Options, if it has any, are the fields of a nested ``Config``, as for every plugin. The
exporters of this folder have none: everything they need is in the decision and the training, a
`marslora.core.exported_run.ExportedRun`. An exporter whose ``layout`` names one of `marslora.data.export` gets the
study's rows beside its settings, as ``train.jsonl`` and ``validation.jsonl``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
