"""What a compiled program can reach at best on its chip, and what its compiler expects."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from capacity.compiled.answer import Answer, Program
from capacity.compiled.traffic import Collective
from capacity.hardware.slice import Slice
from server.quant.schemes import SCHEMES

# Cycles a second that the TPU compiler counts in: peak / (matrix units * 128 * 128 * 2), with the
# units of "TPU v4" (arXiv 2304.01433) and of Google's pages of v5e and v5p.
CLOCK_HZ = {"v4": 1.05e9, "v5e": 1.50e9, "v5p": 1.75e9}


@dataclass(frozen=True)
class StepFloor:
    """Seconds of one run at every peak. `total`: memory and arithmetic at once, then the links.
    expected: by the compiler's cycles, None where it gives none; it leaves out scatters and waits.
    """

    memory: float
    compute: float
    links: float
    expected: float | None

    @property
    def total(self) -> float:
        """No run can be shorter."""
        return max(self.memory, self.compute) + self.links


def floor(program: Program, where: Slice, weights: str) -> StepFloor:
    """Bytes over bandwidth, FLOPs over the peak of what is multiplied, collectives over the links.

    FLOPs are what XLA counts: rows that only fill a tile are in them.
    """
    moved = program.traffic
    chip = where.chip
    arithmetic = SCHEMES[weights].products or ("fp32" if chip.kind == "cpu" else "bf16")
    clock = CLOCK_HZ.get(chip.name)
    return StepFloor(
        memory=moved.bytes / chip.bandwidth,
        compute=program.flops / chip.peak(arithmetic),
        links=_links(moved.collectives, where),
        expected=moved.cycles / clock if clock and moved.cycles else None,
    )


@dataclass(frozen=True)
class Throughput:
    """Output tokens a second of the slice when every slot is always busy and the host takes no
    time: of decoding alone, and with the prompts that the answers come from.
    """

    decode: float
    served: float


def throughput(
    answer: Answer,
    slots: int,
    steps: int,
    where: Slice,
    weights: str,
    prompts: np.ndarray,
    outputs: np.ndarray,
    expected: bool = False,
) -> Throughput | None:
    """From the floors of the compiled programs, or (`expected`) from the compiler's cycles.

    Each answer of the mean length of `outputs` costs its share of decode steps over the whole cache
    and the prefill dispatches of a prompt: tokens are padded to the sizes that are compiled, and
    every dispatch counts as the longest, over the whole cache. None without such programs.
    """
    step = answer.decode
    chunks = [one for one in answer.programs if one.name.startswith("prefill")]
    if step is None:
        return None

    def seconds(program: Program) -> float:
        found = floor(program, where, weights)
        if not expected:
            return found.total
        # Neither can be undercut: the cycles leave out what waits for memory beside the cores.
        return max(found.expected or 0.0, found.total)

    per_token = seconds(step) / (slots * steps)
    decode = 1.0 / per_token
    if not chunks:
        return Throughput(decode, decode)
    longest = max(chunks, key=lambda one: int(one.name.split()[1]))
    size = int(longest.name.split()[1])
    dispatches = np.ceil(prompts / size) + 0.0
    short = prompts < size
    # Short prompts share a dispatch: rows are powers of two that fill its tokens.
    padded = 2.0 ** np.ceil(np.log2(np.maximum(prompts, 32)))
    dispatches[short] = np.minimum(padded[short] / size, 1.0)
    prompt = float(dispatches.mean()) * seconds(longest)
    return Throughput(decode, 1.0 / (per_token + prompt / float(outputs.mean())))


def _links(collectives: Mapping[str, Collective], where: Slice) -> float:
    """Rings over all chips (Thakur, Rabenseifner, Gropp 2005), one collective after the other."""
    link = where.link
    if link is None:
        return 0.0
    share = (where.count - 1) / where.count
    times = {"all-reduce": 2 * share, "collective-permute": 1.0}
    return sum(
        times.get(kind, share) * each.bytes / link + each.count * where.latency
        for kind, each in collectives.items()
    )
