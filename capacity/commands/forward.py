"""`python -m capacity forward`: time and memory of forwards without a KV cache, as on page 004."""

import argparse
import json
from pathlib import Path

from capacity.calibration.interval import Interval, interval
from capacity.commands.options import (
    add_chips,
    posterior_of,
    read_chips,
    read_slice,
    whole_numbers,
    words,
)
from capacity.hardware.chip import GIB
from capacity.hardware.slice import Slice
from capacity.models import find_model
from capacity.serving.cost import datasheet_power
from capacity.tables.markdown import number, table
from capacity.timing.efficiency import Efficiency
from capacity.timing.seconds import step_time
from capacity.work.forward import Forward, forward_memory, forward_work
from capacity.work.part import Work
from capacity.work.setting import COMPUTES
from client.errors import UsageError
from server.quant.schemes import SCHEMES


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--model", required=True, help="a known name, or several with commas")
    parser.add_argument("--slice", required=True, metavar="CHIP", help="one chip, such as a5000")
    parser.add_argument("--batch-size", default="16", help="default: %(default)s, as page 004")
    parser.add_argument("--tokens", default="1024", help="of a sequence (default: %(default)s)")
    parser.add_argument("--quantize", default="none", help=", ".join(SCHEMES))
    parser.add_argument("--compute", choices=COMPUTES, default="bf16")
    parser.add_argument(
        "--software", default="torch", choices=("torch", "loadstone"),
        help="eager kernels, or fused ones with flash attention (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="of `calibrate --out`")
    parser.add_argument(
        "--json", action="store_true",
        help="print runtime_ms and memory_gib by model, as client.offline --estimates takes them",
    )  # fmt: skip
    add_chips(parser)


def run(given: argparse.Namespace) -> int:
    """Prints a row a model, or JSON."""
    where = read_slice(given.slice, read_chips(given))
    if where.count > 1:
        raise UsageError(f"--slice {given.slice}: one chip; several are not modelled here")
    if given.quantize not in SCHEMES:
        raise UsageError(f"--quantize: {', '.join(SCHEMES)}; got {given.quantize!r}")
    posterior, source = posterior_of(given)
    rows = []
    for name in words(given.model):
        forward = _forward(given, name)
        work = forward_work(forward)

        def seconds(efficiency: Efficiency, work: Work = work) -> float:
            return float(step_time(work, where, efficiency).total)

        tags = frozenset({forward.weights, forward.model.name})
        rows.append((forward, interval(seconds, posterior, tags)))
    if given.json:
        print(json.dumps({one.model.name: _as_json(one, time) for one, time in rows}, indent=1))
    else:
        headers = ["Model", "Runtime (ms)", "95% interval (ms)", "Memory (GiB)",
                   "Energy (J/token, from datasheet power)", "Throughput (tokens/s)"]  # fmt: skip
        print(f"{where.chip.title}, {given.software}; efficiencies: {source}\n")
        print("\n".join(table(headers, [_row(one, time, where) for one, time in rows])))
    return 0


def _forward(given: argparse.Namespace, name: str) -> Forward:
    fused = given.software == "loadstone"
    return Forward(
        find_model(name),
        whole_numbers("--batch-size", given.batch_size)[0],
        whole_numbers("--tokens", given.tokens)[0],
        compute=given.compute,
        weights=given.quantize,
        windowed=fused,
        fused=fused,
    )


def _memory(forward: Forward) -> float | None:
    """GiB at the peak of an eager forward; what a compiler keeps is its own to say."""
    return None if forward.fused or forward.weights != "none" else forward_memory(forward) / GIB


def _row(forward: Forward, time: Interval, where: Slice) -> list[str]:
    power = datasheet_power(where)
    tokens = forward.count / time.value
    return [
        forward.model.name,
        number(time.value * 1e3, 4),
        f"{number(time.low * 1e3)} - {number(time.high * 1e3)}",
        number(_memory(forward), 4),
        number(None if power is None else power.joules_per_token(tokens)),
        number(tokens, 4),
    ]


def _as_json(forward: Forward, time: Interval) -> dict[str, float]:
    memory = _memory(forward)
    return {"runtime_ms": time.value * 1e3} | ({} if memory is None else {"memory_gib": memory})
