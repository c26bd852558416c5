"""Write src/marslora/config.schema.json, the JSON schema of configuration files, from the table of options.

Run: python scripts/config_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path

from marslora.core.config_schema import make_schema
from marslora.core.files import write_text
from marslora.settings import SEARCH_OPTIONS

PATH = Path(__file__).parents[1] / "src" / "marslora" / "config.schema.json"


def render() -> str:
    """The schema as text."""
    return json.dumps(make_schema(SEARCH_OPTIONS, "marslora search"), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_text(PATH, render())
