"""The page of a study in a browser without a network: drawn, readable, narrow, dark, on paper, and by keyboard."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from marslora.report import page
from tests.unit.report import example_studies

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = Path(__file__).with_name("page_probe.js")
ALONE = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND")
READABLE = 4.5
"""The least contrast of text by WCAG 2.1, level AA."""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]


def run_chromium(path, *options):
    command = [CHROMIUM, *ALONE, "--enable-logging=stderr", f"--user-data-dir={path.parent / 'profile'}", *options]
    return subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=60, check=True)


@pytest.fixture(scope="module", params=["clear", "rates"])
def written(request, tmp_path_factory):
    path = page.write_page(example_studies.make_example(request.param), tmp_path_factory.mktemp("page") / "page.html")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</body>", f"<script>{PROBE.read_text()}</script></body>"), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["light", "dark", "narrow"])
def looked(request, written):
    """How the page is looked at, what the probe measured, and the lines of the console."""
    options = {"dark": ["--blink-settings=preferredColorScheme=0"], "narrow": ["--window-size=360,800"]}
    more = options.get(request.param, ["--window-size=1200,900"])
    done = run_chromium(written, "--dump-dom", "--virtual-time-budget=4000", *more)
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    return request.param, json.loads(html.unescape(found[1])), re.findall(r".*CONSOLE.*", done.stderr)


def test_every_chart_is_drawn_and_the_console_stays_empty(looked):
    _, found, console = looked
    assert console == []
    assert found["numDrawn"] == found["numPlots"] >= 5


def test_text_can_be_read_in_light_and_dark(looked):
    way, found, _ = looked
    assert found["isDark"] == (way == "dark")
    assert found["weakest"][0] >= READABLE, found["weakest"]


def test_nothing_is_wider_than_the_window(looked):
    way, found, _ = looked
    assert found["width"] <= (500 if way == "narrow" else 1200)
    assert found["scrollWidth"] <= found["width"]


def test_a_table_is_sorted_with_the_keyboard(looked):
    _, found, _ = looked
    assert found["isFocused"] and found["sorts"] == ["ascending", "descending"]


def test_on_paper_everything_is_open_light_and_as_wide_as_a_page(looked):
    way, found, _ = looked
    assert found["printed"]["numClosed"] == 0 < found["numClosed"]
    assert found["printed"]["widest"] <= 640
    assert found["printed"]["paper"] == "#faf9f7"
    assert found["after"]["numClosed"] == found["numClosed"]
    assert (found["after"]["paper"] == "#faf9f7") == (way != "dark")


def test_the_paper_holds_every_candidate(written, tmp_path):
    done = run_chromium(written, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--virtual-time-budget=4000")
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "page.pdf").read_bytes()))
    assert 6 <= pages <= 30, done.stderr[-500:]
