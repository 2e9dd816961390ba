"""Opens pages in a real browser without a screen or a network, for tests."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS = 120
# Elements that show data, and the attribute without which they show nothing.
_DRAWN = {"path": "d", "image": "href", "rect": "width"}
# Milliseconds of the page's own clock until it is looked at; they pass as fast as scripts run.
_BUDGET = 20_000


def find_browser() -> str:
    """The path of a browser; the test is skipped where there is none."""
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip(f"no browser in PATH; install Chromium or Chrome (one of {', '.join(NAMES)})")


@dataclass(frozen=True)
class Chart:
    """A chart as it was drawn: its name and how many shapes of data are in its SVG."""

    name: str
    rendered: bool
    shapes: int


class Page(HTMLParser):
    """The page after its scripts ran."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.root: dict[str, str | None] = {}
        self.charts: dict[str, Chart] = {}
        self.figures: list[tuple[str, float, str]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._words: list[str] = []
        # Where the reader is: the chart, the element, and whether a figure's text comes next.
        self._chart, self._tag, self._figure = "", "", False
        self.feed(html)

    @property
    def errors(self) -> str:
        """What the page says went wrong."""
        found = re.search(r'<div id="errors"[^>]*>(.*?)</div>', self.html, re.DOTALL)
        assert found is not None
        return found.group(1)

    @property
    def text(self) -> str:
        """What a reader sees, scripts and styles left out."""
        return " ".join(" ".join(self._words).split())

    def elements_of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [values for name, values in self.elements if name == tag]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects charts, shapes and figures."""
        values = dict(attrs)
        self.elements.append((tag, values))
        self._tag, self._figure = tag, "data-value" in values
        if tag == "html":
            self.root = values
        if self._figure:
            self.figures.append((values["data-figure"] or "", float(values["data-value"] or 0), ""))
        self._chart_tag(tag, values)

    def _chart_tag(self, tag: str, values: dict[str, str | None]) -> None:
        name = values.get("id") or ""
        if name.startswith("chart-"):
            self._chart = name.removeprefix("chart-")
            self.charts[self._chart] = Chart(self._chart, "data-rendered" in values, 0)
        elif tag == "figcaption":
            self._chart = ""
        elif self._chart and values.get(_DRAWN.get(tag, "")):
            chart = self.charts[self._chart]
            self.charts[self._chart] = replace(chart, shapes=chart.shapes + 1)

    def handle_data(self, data: str) -> None:
        """Collects text."""
        if self._tag in ("script", "style"):
            return
        self._words.append(data)
        if self._figure:
            key, value, shown = self.figures[-1]
            self.figures[-1] = (key, value, shown + data)

    def handle_endtag(self, tag: str) -> None:
        """What follows an element is no part of it."""
        self._figure = False
        self._tag = ""


def open_page(path: Path, *flags: str) -> Page:
    """The page as the browser has it when all scripts have run."""
    return Page(_run(path, "--dump-dom", *flags))


def print_page(path: Path, document: Path) -> None:
    """The page as a PDF, as it would be printed."""
    _run(path, f"--print-to-pdf={document}", "--no-pdf-header-footer")


def _run(path: Path, *flags: str) -> str:
    # A profile of its own: no browser that is open already takes the page over.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            *(find_browser(), "--headless=new", "--no-sandbox", "--disable-gpu"),
            *(f"--user-data-dir={profile}", f"--virtual-time-budget={_BUDGET}"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars"),
            *("--disable-background-networking", "--no-first-run", *flags, path.as_uri()),
        ]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                out, err = process.communicate(timeout=_SECONDS)
            finally:
                _end(process)
    assert process.returncode == 0, err[-2000:]
    return out


def _end(process: subprocess.Popen[str]) -> None:
    """Ends the browser with all its processes, where it did not end by itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
