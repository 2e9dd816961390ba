"""Dispatches of our server, from when tokens reached the client.

Tokens of one dispatch arrive together, and the device works dispatches off without a pause while
there is anything to do. So the time from one group of tokens to the next is that of a dispatch: a
decode step with as many sequences as tokens, or, of first tokens, a prefill dispatch.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capacity.calibration.observation import Observation
from capacity.simulation.step_model import DECODE, PREFILL
from capacity.timing.efficiency import Efficiency, Prior, Priors
from capacity.timing.seconds import step_time
from capacity.work.decode import decode_work, dispatch_work
from capacity.work.part import stack
from capacity.work.reading import positions_read
from capacity.work.setting import Setting
from client.errors import UsageError
from server.models import sizes

# Gaps within a group are far below those between groups: a share of the usual time of a step.
_WITHIN = 0.25
_TRANSPORT = 2e-3  # seconds between a client and our server on its host, generously
_BINS = 8
_OUTLIER = 5.0  # times the median of its bin: the host did something else
_FEWEST = 3
_CONSTANT_SPREAD = 2.5  # of a constant that may be the host's alone, or a hundred times as much


@dataclass(frozen=True)
class Request:
    """A row: seconds at which it was sent and its tokens came, and its prompt."""

    sent: float
    tokens: np.ndarray
    inputs: int


@dataclass(frozen=True)
class Dispatch:
    """seconds: that it took. For a decode step `active` sequences with `live` positions, `longest`
    those of the longest; for a prefill dispatch the `prompts` it read."""

    seconds: float
    active: int = 0
    live: int = 0
    longest: int = 0
    prompts: tuple[int, ...] = ()


def read_dispatches(rows: Path, chunk: int) -> list[Dispatch]:
    """Of a run whose answers were streamed. UsageError for a file that is no rows."""
    requests = _requests(rows)
    found = []
    before: list[tuple[float, int, int]] = []
    for group in _groups(requests):
        if before:
            dispatch = _dispatch(requests, before, group, chunk)
            found += [dispatch] if dispatch is not None else []
        before = group
    return found


def step_observations(
    name: str, setting: Setting, dispatches: Sequence[Dispatch]
) -> list[Observation]:
    """Means of decode steps alike and of prefill dispatches of one size."""
    return [*_decodes(name, setting, dispatches), *_prefills(name, setting, dispatches)]


def step_priors(base: Priors) -> dict[str, Prior]:
    """A profile's, wider, with decode steps and prefill dispatches apart: products of a few rows
    and of many reach different shares. What no dispatch of one chip tells stays fixed.

    A prefill dispatch has a part that does not depend on its prompts and adds to the rest, on CPUs
    tens of ms; elementwise work over its padding is the likely reason.
    """
    apart = ("weights", "compute", "step_s")
    found = {name: Prior(prior.median, max(prior.spread, 0.7)) for name, prior in base.items()}
    kinds = {f"{name}@{kind}": found[name] for name in apart for kind in (DECODE, PREFILL)}
    fixed = {name: Prior(base[name].median, 0.0) for name in (*apart, "link") if name in base}
    constant = {
        f"step_s@{PREFILL}": Prior(base["step_s"].median, _CONSTANT_SPREAD),
        f"overlap@{PREFILL}": Prior(1.0, 0.0),
    }
    return found | kinds | fixed | constant


def _requests(rows: Path) -> list[Request]:
    found = []
    try:
        for line in rows.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["outcome"] == "completed" and row["ttft"] is not None:
                first = row["sent"] + row["ttft"]
                tokens = first + np.concatenate([[0.0], np.cumsum(row["itls"])])
                found.append(Request(row["sent"], tokens, int(row["input_len"])))
    except OSError as error:
        raise UsageError(f"cannot read the rows {rows}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{rows}: not the rows of a run: {error!r}") from error
    return found


def _groups(requests: Sequence[Request]) -> Iterator[list[tuple[float, int, int]]]:
    """Tokens that came together, each (seconds, request, which of its tokens)."""
    gaps = np.concatenate([np.diff(each.tokens) for each in requests] or [np.zeros(0)])
    if not len(gaps):
        return
    apart = _WITHIN * float(np.median(gaps))
    tokens = sorted(
        (float(at), index, number)
        for index, each in enumerate(requests)
        for number, at in enumerate(each.tokens)
    )
    group: list[tuple[float, int, int]] = []
    seen: set[int] = set()
    for token in tokens:
        if group and (token[0] - group[-1][0] > apart or token[1] in seen):
            yield group
            group, seen = [], set()
        group.append(token)
        seen.add(token[1])
    yield group


def _dispatch(
    requests: Sequence[Request],
    before: Sequence[tuple[float, int, int]],
    group: Sequence[tuple[float, int, int]],
    chunk: int,
) -> Dispatch | None:
    """What made a group of tokens; None where it cannot be told."""
    start, end = before[0][0], group[0][0]
    numbers = [number for _, _, number in group]
    long = any(each.inputs > chunk and each.sent < end < each.tokens[0] + 1e-9 for each in requests)
    if long or (0 in numbers and any(numbers)):
        # Chunks of a long prompt make no token; a group of both kinds is two dispatches.
        return None
    who = [requests[index] for _, index, _ in group]
    if any(numbers):
        seen = [each.inputs + number for each, number in zip(who, numbers, strict=True)]
        return Dispatch(end - start, len(group), sum(seen), max(seen))
    if min(each.sent for each in who) + _TRANSPORT > start:
        # It may have come to a server with nothing to do.
        return None
    return Dispatch(end - start, prompts=tuple(each.inputs for each in who))


def _decodes(name: str, setting: Setting, dispatches: Sequence[Dispatch]) -> Iterator[Observation]:
    steps = sorted(
        (each for each in dispatches if each.active), key=lambda each: (each.active, each.live)
    )
    bins = np.array_split(np.arange(len(steps)), min(_BINS, max(len(steps) // _FEWEST, 1)))
    for chosen in bins:
        members = _usual([steps[index] for index in chosen])
        if len(members) < _FEWEST:
            continue
        active = float(np.mean([each.active for each in members]))
        live = float(np.mean([each.live for each in members]))
        read = [positions_read(setting, each.live, each.longest) for each in members]
        work = decode_work(setting, active, float(np.mean(read)))

        def predict(efficiency: Efficiency, work=work) -> float:  # type: ignore[no-untyped-def]
            return float(step_time(work, setting.slice, efficiency).total)

        yield Observation(
            f"{name}, decode, {active:.1f} sequences of {live / active:.0f}",
            float(np.mean([each.seconds for each in members])),
            predict,
            tags=_tags(setting, DECODE),
            error=_error(members),
        )


def _prefills(name: str, setting: Setting, dispatches: Sequence[Dispatch]) -> Iterator[Observation]:
    padded = sizes.prefill_sizes(setting.slots, setting.cache_length, setting.chunk)
    kinds: dict[tuple[int, int], list[Dispatch]] = {}
    for each in dispatches:
        if each.prompts:
            size = next(one for one in padded if one[1] >= max(each.prompts))
            kinds.setdefault(size, []).append(each)
    for size, found in kinds.items():
        members = _usual(found)
        if len(members) < _FEWEST:
            continue
        opened = float(np.mean([len(each.prompts) for each in members]))
        work = stack(
            [
                dispatch_work(setting, *size, [(0, length) for length in each.prompts])
                for each in members
            ]
        )

        def predict(efficiency: Efficiency, work=work, opened=opened) -> float:  # type: ignore[no-untyped-def]
            seconds = float(np.mean(step_time(work, setting.slice, efficiency).total))
            return seconds + opened * efficiency.request_s * efficiency.effect

        yield Observation(
            f"{name}, prefill of {size[0]} x {size[1]}, {opened:.1f} prompts",
            float(np.mean([each.seconds for each in members])),
            predict,
            tags=_tags(setting, PREFILL),
            error=_error(members),
        )


def _usual(found: Sequence[Dispatch]) -> list[Dispatch]:
    """Without those that took several times as long as the rest; none where most came together
    with the tokens before them, so that nobody knows what they took."""
    most = _OUTLIER * float(np.median([each.seconds for each in found] or [0.0]))
    if not most:
        return []
    return [each for each in found if each.seconds <= most]


def _error(members: Sequence[Dispatch]) -> float:
    """Standard error of their mean, as a share of it. What they differ in by their tokens, which a
    prediction knows of, is no error."""
    seconds = np.array([each.seconds for each in members])
    tokens = np.array([each.live or sum(each.prompts) for each in members], dtype=float)
    line = np.polyfit(tokens - tokens.mean(), seconds, 1 if np.ptp(tokens) else 0)
    left = seconds - np.polyval(line, tokens - tokens.mean())
    variance = float(left @ left) / (len(left) - len(line))
    return float(np.sqrt(variance / len(left)) / seconds.mean())


def _tags(setting: Setting, kind: str) -> frozenset[str]:
    return setting.tags | {kind}
