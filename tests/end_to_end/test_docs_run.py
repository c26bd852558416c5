"""What the documentation shows is run: the tutorial in an empty folder, and the notebooks."""

from pathlib import Path

import pytest

from tests.helpers.pages import run_page

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
LIMIT_SECONDS = 1500
"""Longest time of a page, which takes a few minutes on two free cores."""
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", ["tutorial", "walk_questions", "walk_sound"])
def test_a_walk_from_an_empty_folder_ends_with_an_adapter_and_an_answer(page, tmp_path):
    done = run_page((DOCS / f"{page}.md").read_text(), tmp_path, LIMIT_SECONDS)
    assert len(done) >= 5
    printed = {command.split()[1]: output for command, output in done if command.startswith("marslora ")}
    assert "bad rows       0" in printed["data"]
    assert "validation loss" in printed["search"]
    assert "adapter" in printed["try"]
    assert (tmp_path / "study" / "final" / "adapter" / "adapter_config.json").exists()
    if page == "tutorial":
        assert "vllm serve" in done[-1][1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs_from_its_first_cell_to_its_last(path, tmp_path):
    pytest.importorskip("ipykernel", reason="needs marslora[notebooks]")
    nbformat = pytest.importorskip("nbformat", reason="needs marslora[notebooks]")
    nbclient = pytest.importorskip("nbclient", reason="needs marslora[notebooks]")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output.data for output in outputs if output.output_type in ("execute_result", "display_data")]
    assert shown
    assert all(len(data.get("text/plain", "")) < 2000 for data in shown), "a cell prints a page"


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 3
