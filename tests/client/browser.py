"""Opens pages in a real browser without a screen or a network, for tests."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS = 120
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
        self._texts: dict[str, list[str]] = {}
        self._inside: list[tuple[str, str]] = []
        self._name = ""
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
        return " ".join(" ".join(self._texts.get("text", [])).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects charts, shapes and figures."""
        values = dict(attrs)
        self.elements.append((tag, values))
        self._tag = tag
        if tag == "html":
            self.root = values
        name = values.get("id") or ""
        if name.startswith("chart-"):
            self._name = name.removeprefix("chart-")
            self.charts[self._name] = Chart(self._name, "data-rendered" in values, 0)
        if tag == "figcaption":
            self._name = ""
        drawn = {"path": "d", "image": "href", "rect": "width"}
        if self._name and tag in drawn and values.get(drawn[tag]):
            chart = self.charts[self._name]
            self.charts[self._name] = Chart(chart.name, chart.rendered, chart.shapes + 1)
        if values.get("data-value") is not None:
            figure = (values["data-figure"] or "", float(values["data-value"] or "nan"))
            self.figures.append((*figure, ""))
            self._figure = True
        else:
            self._figure = False

    def handle_data(self, data: str) -> None:
        """Collects text."""
        if self._tag in ("script", "style"):
            return
        self._texts.setdefault("text", []).append(data)
        if self._figure:
            key, value, shown = self.figures[-1]
            self.figures[-1] = (key, value, shown + data)

    def handle_endtag(self, tag: str) -> None:
        """What follows an element is no part of it."""
        self._figure = False
        self._tag = ""

    _figure = False
    _tag = ""


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


def elements(page: Page, tag: str) -> Iterator[dict[str, str | None]]:
    """The attributes of every element of a kind."""
    return (values for name, values in page.elements if name == tag)
