"""Complete the documentation site while mkdocs builds it: pages from the root of the repository, generated tables, and
links to files that are not pages."""

from __future__ import annotations

import importlib
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from marslora.cli.list import PACKAGES
from marslora.core import plugins
from marslora.core.options import OptionTable
from marslora.settings import SEARCH_OPTIONS

ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "dev/LOG.md": "log.md"}
"""Pages of the site that are files elsewhere in the repository."""
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from elsewhere and the generated ones."""
    made = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in PAGES.items()}
    made["reference/options.md"] = write_options(SEARCH_OPTIONS)
    made["reference/plugins.md"] = write_plugins()
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Lead links to pages of the site, and print the path of a file that is not on the site instead of a link.

    A link to a file that does not exist at all stays as it is, so that the build fails.
    """
    source = next((source for source, name in PAGES.items() if name == page.file.src_uri), f"docs/{page.file.src_uri}")

    def lead(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        name = PAGES.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(name) is not None:
            here = posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or ".")
            return f"]({here}{found[2] or ''})"
        return f"] (`{target}` in the repository)" if (ROOT / target).exists() else found[0]

    return re.sub(r"\[([^\]]*)\] \(", r"\1 (", LINK.sub(lead, markdown))


def write_options(table: OptionTable) -> str:
    """A page with every option of a search, by group: flag, keyword, place in the configuration file and meaning."""
    lines = ["# Options of a search", "", "One table, generated from the package. `marslora search --help` prints it."]
    for panel in dict.fromkeys(row.option.panel for row in table.rows):
        lines += ["", f"## {panel}", "", "| flag | keyword | in a file | meaning |", "|---|---|---|---|"]
        for row in table.rows:
            if row.option.panel == panel:
                flags = ", ".join(f"`{flag}`" for flag in (row.flag, row.option.short) if flag)
                place = "" if row.option.key else f"`{'.'.join(row.path)}`"
                lines.append(f"| {flags} | `{row.name}` | {place} | {escape_cell(row.help)} |")
    return "\n".join(lines) + "\n"


def write_plugins() -> str:
    """A page with every plugin that can be named, by package."""
    lines = ["# Plugins", "", "Generated from the package; `marslora list NAME` prints the options of one."]
    for name, option in PACKAGES.items():
        package = importlib.import_module(f"marslora.{name}")
        lines += ["", f"## {name}", "", f"`marslora {option} NAME`", "", "| name | what it is |", "|---|---|"]
        lines += [
            f"| `{each}` | {escape_cell(plugins.summary(package, each))} |" for each in sorted(plugins.names(package))
        ]
    return "\n".join(lines) + "\n"


def escape_cell(text: str) -> str:
    """The text as the content of a table's cell."""
    return text.replace("|", "\\|")
