"""Outputs of commands stand below them in pages that can be run, and old ones go."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "page_output.py"
PAGE = """# A page
```python
# a.py
print(1)
```
```console
$ python a.py
old
$ marslora search --model m \\
    --train rows
old
old
```
"""


def load_script():
    spec = importlib.util.spec_from_file_location("page_output", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_outputs_replace_those_that_stood_there():
    script = load_script()
    outputs = [("python a.py", "1\n"), ("marslora search", "progress\n╭─╮\n│ verdict │\n╰─╯\n")]
    filled = script.fill(PAGE, outputs)
    assert (
        "$ python a.py\n1\n$ marslora search --model m \\\n    --train rows\n...\n╭─╮\n│ verdict │\n╰─╯\n```" in filled
    )
    assert "old" not in filled and "print(1)" in filled
    assert script.fill(filled, outputs) == filled


def test_long_output_is_shortened():
    script = load_script()
    shown = script.shorten("\n".join(str(n) for n in range(50)) + "\n")
    assert shown == [*(str(n) for n in range(script.MOST_LINES)), "..."]
    (cut,) = script.shorten("x" * 200)
    assert len(cut) == script.WIDTH and cut.endswith(" ...")
