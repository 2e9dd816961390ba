"""The published rows, their definitions and their known errors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any

from capacity.names import pick

FORMAT = "loadstone-published-1"
MEASURED = "ok"


@dataclass(frozen=True)
class PublishedRow:
    """One setting of a page. `values` by metric, as printed but under a name that says the unit
    (`published.json` defines each). status: ok, oom, empty or not measured.
    """

    id: str
    page: str
    table: str
    model: str
    printed_model: str
    chip: str
    chips: int
    weights: str
    compute: str
    status: str
    variant: str = ""
    version: str = ""
    cache: str = "none"
    sharding: str = "model"
    batch: int = 0
    prompt: int = 0
    new_tokens: int = 0
    cache_length: int = 0
    most_input: int = 0
    most_output: int = 0
    date: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    page_estimate: Mapping[str, float] = field(default_factory=dict)
    page_error_percent: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownError:
    """Something a page prints that is wrong or easily misread.

    kind: number, definition, label, missing, format, provenance or result. rows: the ids that it is
    about; none for the whole page. metric: of these rows; empty for all.
    """

    page: str
    kind: str
    metric: str
    text: str
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedPage:
    """A page, and where it comes from."""

    number: str
    name: str
    title: str
    source: str
    url: str
    software: str
    workload: str
    definitions: Mapping[str, str]
    rows: tuple[PublishedRow, ...]
    errors: tuple[KnownError, ...]

    def wrong_values(self, metric: str) -> dict[str, str]:
        """Ids of rows whose number is known to be wrong, and why."""
        return {
            row: error.text
            for error in self.errors
            for row in error.rows
            if error.kind == "number" and error.metric == metric
        }


@cache
def published() -> dict[str, PublishedPage]:
    """Every page by its number."""
    text = (resources.files("capacity.published") / "published.json").read_text()
    document = json.loads(text)
    if document["format"] != FORMAT:
        raise ValueError(f"published.json has the format {document['format']}; this reads {FORMAT}")
    return {
        number: PublishedPage(
            number=number,
            rows=tuple(_row(row) for row in _of(number, document["rows"])),
            errors=tuple(
                KnownError(**{**error, "rows": tuple(error["rows"])})
                for error in _of(number, document["known_errors"])
            ),
            **about,
        )
        for number, about in document["pages"].items()
    }


def find_page(name: str) -> PublishedPage:
    """By number (004) or by name (torchcap). UsageError names what there is."""
    pages = published()
    names = {**{page.name: page for page in pages.values()}, **pages}
    return pick("page", name, names)


def _of(number: str, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if entry["page"] == number]


def _row(values: Mapping[str, Any]) -> PublishedRow:
    known = {each.name for each in fields(PublishedRow)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"published.json: {values.get('id')}: unknown {unknown}; known: {known}")
    return PublishedRow(**values)
