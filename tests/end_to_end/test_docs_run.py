"""What the documentation shows is run: the tutorial in an empty folder, and the notebooks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.slow


def find_steps(text):
    """The files that Python blocks name in their first line, and the commands of console blocks, in order."""
    for kind, block in re.findall(r"^```(python|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if kind == "python":
            yield "file", block
        else:
            yield from (("command", line.removeprefix("$ ")) for line in block.splitlines() if line.startswith("$ "))


def test_the_tutorial_ends_with_an_answer_and_a_script_that_serves(tmp_path):
    commands = [f'marslora() {{ "{sys.executable}" -m marslora "$@"; }}', f'python() {{ "{sys.executable}" "$@"; }}']
    for kind, step in find_steps((DOCS / "tutorial.md").read_text()):
        if kind == "file":
            (tmp_path / step.splitlines()[0].removeprefix("# ")).write_text(step)
        else:
            commands.append(step)
    assert len(commands) > 8
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-ec", "\n".join(commands)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "240" in done.stdout and "adapter" in done.stdout
    assert "vllm serve" in done.stdout
    assert (tmp_path / "study" / "final" / "adapter" / "adapter_config.json").exists()


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
