"""Draw a histogram as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

WIDTH = 40
"""Characters of the longest bar: with labels and counts it fits a terminal of 80 columns."""
_EIGHTHS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589"
_FULL = "\u2588"


def draw_bars(edges: Sequence[int], counts: Sequence[int], width: int = WIDTH) -> Iterator[str]:
    """Yield a line for each bin: its lower edge, a bar, its count. Every bin that is not empty has a visible bar."""
    most = max(counts)
    labels = [f"{edge:,}" for edge in edges[:-1]]
    margin = max(map(len, labels))
    for label, count in zip(labels, counts, strict=True):
        eighths = max(int(count > 0), round(8 * width * count / most))
        bar = _FULL * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
        yield f"{label:>{margin}} {bar:<{width}} {count:,}"
