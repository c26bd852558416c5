"""Run a comparison that a user asked for, and write ``compare.json`` and ``compare.html`` into its folder."""

from __future__ import annotations

from marslora.checks import check_method
from marslora.comparison.settings import ComparisonRequest
from marslora.comparison.stages import ComparisonStages
from marslora.core.comparison import Comparison
from marslora.core.progress import Listener, SilentListener
from marslora.core.stopping import exit_on_termination
from marslora.report import comparison as page
from marslora.run_options import ComparisonOptions
from marslora.store.study import Study


def run_comparison(
    request: ComparisonRequest, options: ComparisonOptions, listener: Listener | None = None
) -> Comparison:
    """Train the runs that are missing in the folder, write the result and its page, and return the result.

    Raises `StudyError` if the folder belongs to another model, other data or other common settings, and what
    `check_method` and `ComparisonStages.run` raise.
    """
    for entry in request.comparison.methods:
        check_method(entry, request.common, experts=request.study.model.experts)
    folder, executor = options.out or request.default_folder, options.make_executor()
    with exit_on_termination(), Study.create(folder, request.study) as study:
        stages = ComparisonStages(study, request.comparison, request.common, executor, listener or SilentListener())
        comparison = stages.run()
    page.write_page(comparison, folder / page.NAME)
    return comparison
