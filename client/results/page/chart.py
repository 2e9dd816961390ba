"""How every chart looks: one palette, one layout, figures as plain Plotly documents."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Okabe and Ito's colours, which people with any colour vision tell apart (jfly.uni-koeln.de/color).
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY, GREY = "#CC79A7", "#E69F00", "#56B4E9", "#999999"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("solid", "dash", "dot", "dashdot")
_SIGNIFICANT = 6


@dataclass(frozen=True)
class Chart:
    """A chart of the page. `traces` and `layout` are Plotly's; text in them must be `plain`."""

    name: str
    title: str
    caption: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 320
    wide: bool = True

    def __post_init__(self) -> None:
        if not self.traces:
            raise ValueError(f"chart {self.name}: at least one trace")

    def document(self) -> dict[str, Any]:
        """What Plotly draws."""
        has_legend = self.layout.get("showlegend", len(self.traces) > 1)
        layout = _base_layout(has_legend) | {"height": self.height} | self.layout
        return {"name": self.name, "data": list(self.traces), "layout": layout}


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title and unit."""
    return {
        "title": {"text": title, "standoff": 8},
        "automargin": True,
        "zeroline": False,
        # Seen on light and on dark.
        "gridcolor": faded("#888888", 0.27),
        "linecolor": faded("#888888", 0.53),
        "ticks": "outside",
        "tickcolor": faded("#888888", 0.53),
    } | more


def line_style(place: int) -> dict[str, Any]:
    """Colour and dash of the run at this place; as many differ as a page holds runs."""
    colour = PALETTE[place % len(PALETTE)]
    return {"color": colour, "dash": DASHES[place // len(PALETTE) % len(DASHES)], "width": 2}


def faded(colour: str, opacity: float) -> str:
    """A colour such as #0072B2 that lets what is behind it through."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def plain(text: str, longest: int = 80) -> str:
    """Text as Plotly shows it, letter by letter: it reads tags and entities in all its text."""
    return html.escape(text if len(text) <= longest else text[: longest - 3] + "...", quote=False)


def numbers(values: Iterable[float]) -> list[float | None]:
    """Values for JSON: six digits of each, None for what is not finite."""
    array = np.asarray(list(values), dtype=np.float64)
    return [
        float(f"{value:.{_SIGNIFICANT}g}") if np.isfinite(value) else None
        for value in array.tolist()
    ]


def _base_layout(has_legend: bool) -> dict[str, Any]:
    return {
        "margin": {"l": 48, "r": 16, "t": 36 if has_legend else 12, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "showlegend": has_legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"bgcolor": "#222222", "font": {"color": "#ffffff"}, "align": "left"},
    }
