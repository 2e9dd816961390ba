"""Puts the page together: one HTML document with everything in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from client.errors import UsageError
from client.results.page.chart import Chart
from client.results.page.definitions import OUTCOMES, SCALARS, known_latencies, present
from client.results.page.distributions import itl_charts, ttft_charts
from client.results.page.headline import Card, headline
from client.results.page.offline_charts import offline_charts
from client.results.page.over_time import over_time
from client.results.page.rates import curve_of, curves_of_runs, rate_charts
from client.results.page.sources import RunSource, Sources
from client.results.page.sweep_map import sweep_charts
from client.results.page.tables import (
    Table,
    curve_table,
    figures_tables,
    machine_table,
    offline_table,
    outcomes_table,
    settings_table,
    stalls_table,
    sweep_table,
)
from client.results.page.timeline import timelines
from client.results.page.verdict import judge

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading: charts, then tables."""

    name: str
    title: str
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    # Long tables are folded away until someone opens them.
    folded: bool = False


def render_page(sources: Sources, title: str) -> str:
    """The page as HTML. Raises `UsageError` where plotly is not installed."""
    return render_document(
        title,
        _sections(sources),
        banners=[judge(run) for run in sources.runs],
        cards=headline(sources),
        definitions=_definitions(sources.runs),
    )


class Banner(Protocol):
    """What stands at the top: `kind` is its style, `state` one word in bold, then `label`."""

    @property
    def kind(self) -> str:
        """valid, invalid or open."""

    @property
    def state(self) -> str:
        """In bold."""

    @property
    def label(self) -> str:
        """Beside it."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Lines in the colour of a warning."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines in grey."""


def render_document(
    title: str,
    parts: Sequence[Section],
    *,
    banners: Sequence[Banner] = (),
    cards: Sequence[Card] = (),
    definitions: Sequence[tuple[str, str]] = (),
) -> str:
    """A page of these parts as HTML; empty ones are left out.

    Raises `UsageError` where plotly is not installed.
    """
    library = _plotly()
    sections = [section for section in parts if section.charts or section.tables]
    charts = [chart for section in sections for chart in section.charts]
    return _environment().get_template("page.html").render(
        title=title,
        verdicts=banners,
        cards=cards,
        sections=sections,
        definitions=definitions,
        documents=[chart.document() for chart in charts],
        version=_version(),
        # Files of this package, and of plotly; nothing of the input is in them.
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup((_FOLDER / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(library) if charts else None,
    )  # fmt: skip


def _sections(sources: Sources) -> list[Section]:
    runs = sources.runs
    found = []
    if runs:
        series, stalls = over_time(runs), stalls_table(runs)
        found += [
            Section("figures", "Figures", tables=figures_tables(runs)),
            Section("time", "Over time", charts=[series] if series else []),
            Section("ttft", "Time to first token", charts=ttft_charts(runs)),
            Section("itl", "Inter-token latency", itl_charts(runs), [stalls] if stalls else []),
        ]
    curves = [*map(curve_of, sources.curves), *curves_of_runs(runs)]
    for place, curve in enumerate(curves):
        charts = rate_charts(place, curve)
        found.append(
            Section(f"rates-{place}", "Latency against rate", charts, [curve_table(curve)])
        )
    found.append(Section("requests", "Requests", timelines(runs)))
    for place, sweep in enumerate(sources.sweeps):
        charts = sweep_charts(place, sweep)
        found.append(Section(f"sweep-{place}", "Sweep", charts, [sweep_table(sweep)]))
    if runs:
        found.append(Section("outcomes", "Outcomes and failures", tables=[outcomes_table(runs)]))
    for place, offline in enumerate(sources.offlines):
        charts = offline_charts(place, offline, sources.qualities)
        found.append(Section(f"offline-{place}", "Engines", charts, [offline_table(offline)]))
    settings = [settings_table(runs)] if runs else []
    settings += [
        machine_table(each) for each in (*sources.curves, *sources.sweeps, *sources.offlines)
    ]
    return [*found, Section("settings", "Settings and host", tables=settings, folded=True)]


def _definitions(runs: Sequence[RunSource]) -> list[tuple[str, str]]:
    records = [run.record for run in runs]
    scalars = present((*OUTCOMES, *SCALARS), records)
    found = [(figure.label, figure.definition) for figure in scalars]
    return found + [(each.label, each.definition) for each in known_latencies(records)]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UsageError(
            "the page needs plotly, which is not installed: pip install 'loadstone[report]'"
        ) from error
    return str(get_plotlyjs())


def _version() -> str:
    try:
        return version("loadstone")
    except PackageNotFoundError:
        return "(not installed)"
