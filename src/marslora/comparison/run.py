"""A comparison from what was asked to `compare.json` and `compare.html` in its folder."""

from __future__ import annotations

from pathlib import Path

from marslora.comparison.settings import Asked
from marslora.comparison.stages import Comparing
from marslora.core.comparison import Comparison
from marslora.executors import AbstractExecutor
from marslora.executors.inline import Inline
from marslora.pipeline import Listener, Silent
from marslora.report import comparison as page
from marslora.store.study import Study


def run(
    asked: Asked, folder: Path, *, listener: Listener | None = None, executor: AbstractExecutor | None = None
) -> Comparison:
    """Train what is not there yet, and write the result and its page.

    Raises `StudyError` where ``folder`` belongs to another model, other data or other common settings, and what
    `Comparing.run` raises.
    """
    with Study.create(folder, asked.study) as study:
        found = Comparing(study, asked.comparison, asked.common, executor or Inline(), listener or Silent()).run()
    page.write(found, folder / page.NAME)
    return found
