"""This host's CPU as a chip, by measurement."""

from pathlib import Path

from capacity.hardware.chip import GIB, Chip, Figure
from client.results.host import describe_host, has_bf16
from client.sweeping.peaks import measure_bandwidth, measure_flops

# Over float32: AVX-512 VNNI multiplies and adds four int8 in the place of a float32, AVX512-BF16
# two bfloat16.
INT8_PEAK, BF16_PEAK = 4, 2
_SOURCE = "measured on this host by client.sweeping.peaks, and /proc/meminfo"


def measure_host(date: str, price_per_hour: float | None = None) -> Chip:
    """Reads and copies 512 MiB and multiplies float32 matrices of 2,048 x 2,048, a few seconds.

    The peaks of int8, and of bfloat16 where the processors have instructions for it, are not
    measured but taken as `INT8_PEAK` and `BF16_PEAK` times that of float32.
    """
    flops = measure_flops() / 1e12
    figures = {
        "memory_gib": _memory() / GIB,
        "bandwidth_gbps": measure_bandwidth() / 1e9,
        "fp32_tops": flops,
        "int8_tops": INT8_PEAK * flops,
    }
    if has_bf16():
        figures["bf16_tops"] = BF16_PEAK * flops
    if price_per_hour is not None:
        figures["price_per_hour"] = price_per_hour
    host = describe_host()
    return Chip(
        name="cpu",
        title=f"{host['cpu']}, {host['cores']} cores",
        kind="cpu",
        figures={name: Figure(value, _SOURCE, date) for name, value in figures.items()},
    )


def _memory() -> float:
    """Bytes of the host, or of its control group where that has less."""
    total = float("inf")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        total = int(fields["MemTotal"].split()[0]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and limit.read_text().strip() != "max":
        total = min(total, int(limit.read_text()))
    if total == float("inf"):
        raise OSError("this host does not tell how much memory it has (/proc/meminfo)")
    return total
