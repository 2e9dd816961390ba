"""Energy that a device says it used. Standard library only.

NVML counts millijoules of a whole GPU (nvmlDeviceGetTotalEnergyConsumption, Volta and later); RAPL
counts microjoules of whole processor packages, whoever used them (Linux, mostly for root alone).
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RAPL = Path("/sys/class/powercap")
_NVML = "libnvidia-ml.so.1"


@dataclass(frozen=True)
class Meter:
    """`read()`: joules since some moment of the past. `source` says who counts."""

    source: str
    read: Callable[[], float]


def find_meter(device: str, devices: int, folder: Path = RAPL) -> Meter | None:
    """The counter of devices of this name; None where there is none, or it would count others too:
    NVML's is taken where the host has as many GPUs as are used."""
    if device.lower() == "cpu":
        return _rapl(folder)
    return _nvml(devices) if "nvidia" in device.lower() else None


def _rapl(folder: Path) -> Meter | None:
    packages = sorted(folder.glob("intel-rapl:[0-9]"))
    try:
        limits = [int((each / "max_energy_range_uj").read_text()) for each in packages]
        last = [_counter(each) for each in packages]
    except (OSError, ValueError):
        return None
    if not packages:
        return None
    wound = [0] * len(packages)

    def read() -> float:
        total = 0
        for place, each in enumerate(packages):
            now = _counter(each)
            # The counter starts again at 0 when it has reached its end.
            wound[place] += limits[place] if now < last[place] else 0
            last[place] = now
            total += now + wound[place]
        return total / 1e6

    return Meter("RAPL, whole processor", read)


def _counter(package: Path) -> int:
    return int((package / "energy_uj").read_text())


def _nvml(devices: int) -> Meter | None:
    try:
        library = ctypes.CDLL(_NVML)
    except OSError:
        return None
    count, handles = ctypes.c_uint(), []
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return None
    if count.value != devices:
        return None
    for index in range(count.value):
        handle = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
            return None
        handles.append(handle)

    def read() -> float:
        total = 0
        for handle in handles:
            joules = ctypes.c_ulonglong()
            failed = library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(joules))
            if failed:
                raise OSError(f"NVML gives no energy (its error {failed})")
            total += joules.value
        return total / 1e3

    try:
        read()
    except OSError:
        return None
    return Meter("NVML, whole GPU", read)
