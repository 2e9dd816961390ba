"""The page of `capacity compile --page`: published rows, compiled, planned and measured."""

import argparse
import contextlib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import TypeVar

from tqdm import tqdm

from capacity.calibration.fit import fit
from capacity.calibration.interval import Interval, interval
from capacity.commands.options import read_chips
from capacity.compiled.answer import Answer
from capacity.compiled.ask import PROGRAMS, Ask
from capacity.compiled.page import CompiledRow, RowAsks, compile_row, search_row
from capacity.compiled.process import Compiler, TimeUpError
from capacity.compiled.target import Target
from capacity.published import jetstream
from capacity.published.model import Chips
from capacity.published.rows import PublishedRow
from capacity.serving.lengths import SAMPLE, parse_lengths
from capacity.tables.compiled_page import PageHead, PageRow, as_json, render_page
from capacity.timing.profiles import NOISE, PROFILES
from capacity.work.software import SOFTWARE
from client.results.host import describe_host

_OURS = SOFTWARE["loadstone"]
Row = TypeVar("Row")
Open = Callable[[Target], contextlib.AbstractContextManager[Compiler]]
Ended = TimeUpError | KeyboardInterrupt


def make_page(given: argparse.Namespace, opened: Open) -> tuple[str, Ended | None]:
    """All rows as published, then their largest batches: Markdown or JSON, and what ended it early.

    `opened` starts a compiler for a target.
    """
    chips = read_chips(given)
    published = [row for row in jetstream.MODEL.page.rows if row.batch]
    lengths = parse_lengths(given.lengths)
    found: list[PageRow] = []
    versions: dict[str, str] = {}
    ended: Ended | None = None
    with contextlib.ExitStack() as stack:
        ask = _asking(opened, stack, versions)
        asks = RowAsks(ask, given.programs, lengths, given.batch_step, given.compiles)
        try:
            for row in _bar(published, "published batches"):
                setting = jetstream.setting_of(row, chips, _OURS)
                found.append(_page_row(row, compile_row(setting, asks), chips))
            for at, known in enumerate(_bar(found[:] if given.compiles else [], "largest batches")):
                compiled = search_row(known.compiled, asks)
                found[at] = _page_row(known.published, compiled, chips)
        except (TimeUpError, KeyboardInterrupt) as error:
            ended = error
    if given.json:
        return json.dumps([as_json(each) for each in found], indent=1), ended
    head = PageHead(_command(given), _made_on(versions), str(lengths))
    return "\n".join(render_page(found, published[len(found) :], head)), ended


def _asking(
    opened: Open, stack: contextlib.ExitStack, versions: dict[str, str]
) -> Callable[[Ask], Answer]:
    """One process a kind of slice: its environment tells the compiler what it compiles for.
    `versions` takes those of the compilers."""
    compilers: dict[str, Compiler] = {}

    def ask(what: Ask) -> Answer:
        kind = what.target.options["accelerator_type"]
        if kind not in compilers:
            compilers[kind] = stack.enter_context(opened(what.target))
            versions.update(compilers[kind].versions)
        return compilers[kind].ask(what)

    return ask


def _page_row(row: PublishedRow, compiled: CompiledRow, chips: Chips) -> PageRow:
    best = compiled.largest.slots if compiled.largest is not None else 0
    return PageRow(
        row,
        compiled,
        _planned(row, chips) if compiled.answer.fits else None,
        _planned(replace(row, batch=best), chips) if best else None,
    )


def _planned(row: PublishedRow, chips: Chips) -> Interval:
    """The published run by our server, as `estimate` has it without a calibration."""
    posterior = fit([], PROFILES["loadstone"], NOISE["loadstone"])
    tags = jetstream.setting_of(row, chips, _OURS).tags
    return interval(jetstream.expects(row, chips, _OURS).predict, posterior, tags)


def _command(given: argparse.Namespace) -> str:
    """Without what differs from machine to machine."""
    words = ["--page", given.page, "--compiles", str(given.compiles)]
    if given.compiles:
        words += ["--batch-step", str(given.batch_step)]
    if given.programs != PROGRAMS[0]:
        words += ["--programs", given.programs]
    if given.lengths != SAMPLE:
        words += ["--lengths", given.lengths]
    return shlex.join(["python", "-m", "capacity", "compile", *words])


def _made_on(versions: Mapping[str, str]) -> str:
    host = describe_host()
    compilers = ", ".join(f"{name} {one}" for name, one in versions.items() if name != "loadstone")
    return (
        f"{date.today().isoformat()}, {host['cpu']}, {host['cores']} cores, Python "
        f"{host['python']}, loadstone {host['loadstone']}, {compilers}."
    )


def _bar(rows: Sequence[Row], what: str) -> Iterable[Row]:
    return tqdm(rows, desc=what, unit="row", disable=None)
