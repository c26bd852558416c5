"""HTML elements from text; everything that is not markup itself is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(content: object) -> Markup:
    """Return the content as HTML: `Markup` unchanged, anything else as escaped text."""
    return content if isinstance(content, Markup) else Markup(html.escape(str(content)))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """One element. ``class_`` becomes ``class``, ``data_figure`` ``data-figure``; attributes of None are omitted."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(escape(each) for each in content)}</{name}>")


def join(parts: Iterable[object], between: str = "\n") -> Markup:
    """Join pieces of markup with a separator."""
    return Markup(escape(between).join(escape(part) for part in parts))


def paragraphs(sentences: Iterable[object]) -> Markup:
    """A paragraph (``p``) for each sentence or text."""
    return join(tag("p", each) for each in sentences)


def bullets(items: Iterable[object]) -> Markup:
    """An unordered list of the items."""
    return tag("ul", *(tag("li", item) for item in items))


def section(anchor: str, title: str, *content: object) -> Markup:
    """A section with a heading; ``anchor`` is its id, to which links lead."""
    return tag("section", tag("h2", title), *content, id=anchor)


def collapse(title: str, *content: object) -> Markup:
    """Content that is hidden until its ``title`` is clicked (``details``); needs no JavaScript."""
    return tag("details", tag("summary", title), *content)


def cell(content: object, *, sort: float | str | None = None, number: bool = False) -> Markup:
    """A table cell. Columns are sorted by ``sort``, or by the text if it is None; numbers are aligned on the right."""
    return tag("td", content, class_="n" if number else None, data_sort=sort)


def table(
    heads: Sequence[object], rows: Iterable[Sequence[object]], *, name: str = "", marks: Sequence[str] = ()
) -> Markup:
    """A table that scrolls sideways on narrow screens; ``marks`` are the classes of the rows.

    Cells are made by `cell` or are plain content; a column is aligned like its first cell.
    """
    lines = [
        [each if isinstance(each, Markup) and each.startswith("<td") else cell(each) for each in row] for row in rows
    ]
    numeric = [each.startswith('<td class="n"') for each in lines[0]] if lines else [False] * len(heads)
    head = tag(
        "tr", *(tag("th", text, class_="n" if n else None, scope="col") for text, n in zip(heads, numeric, strict=True))
    )
    classes = [*marks, *[""] * (len(lines) - len(marks))]
    body = (tag("tr", *line, class_=mark or None) for line, mark in zip(lines, classes, strict=True))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body), class_=name or None), class_="scroll")
