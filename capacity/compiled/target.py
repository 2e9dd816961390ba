"""Devices that programs are compiled for: present, or known to the compiler by name alone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from capacity.hardware.slice import Slice
from client.errors import UsageError

# What libtpu calls a chip (names of topologies), and the accelerator type it wants to be told.
_TPU = {
    "v4": ("v4", "v4"),
    "v5e": ("v5e", "v5litepod"),
    "v5p": ("v5p", "v5p"),
    "v6e": ("v6e", "v6e"),
}
# What the compiler takes a host to have; a smaller slice is a part of one, and it must be told so.
_CHIPS_PER_HOST = 4

# Chips of two cores, which programs see as one.
_PAIRED = ("v4", "v5p")

# GPUs as XLA describes them (GpuTargetConfigProto). From NVIDIA's CUDA programming guide, tables of
# compute capabilities, and the products' architecture papers.
_GPU = {
    "a100-40g": (8, 0, 108, 64, 166_912, 167_936, 41_943_040, 1.41),
    "a100-80g": (8, 0, 108, 64, 166_912, 167_936, 41_943_040, 1.41),
    "h100": (9, 0, 132, 128, 232_448, 233_472, 52_428_800, 1.98),
    "h200": (9, 0, 132, 128, 232_448, 233_472, 62_914_560, 1.98),
}


@dataclass(frozen=True)
class Target:
    """`count` devices of a platform. `topology` and `options` are what the compiler is told of
    devices that are not here; with `topology` "" the devices at hand are used. memory: bytes of a
    device that programs can have.
    """

    name: str
    platform: str
    count: int
    topology: str
    memory: int
    options: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def environment(self) -> dict[str, str]:
        """Variables for the compiler's process: it must not look for devices."""
        found = {"JAX_PLATFORMS": "cpu"}
        if self.platform == "gpu" and not self.topology:
            found["JAX_PLATFORMS"] = "cuda,cpu"
        if self.platform == "tpu":
            found |= {
                "TPU_SKIP_MDS_QUERY": "1",
                "TPU_ACCELERATOR_TYPE": self.options["accelerator_type"],
                "TPU_WORKER_HOSTNAMES": "localhost",
                # libtpu locks a file for the whole machine; those that only compile share nothing.
                "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
                "TPU_LOG_DIR": "disabled",
                "TPU_MIN_LOG_LEVEL": "3",
                "TPU_STDERR_LOG_LEVEL": "3",
            }
        return found


def target_of(where: Slice, present: bool = False) -> Target:
    """The target of a slice. `present`: its devices are in this machine (GPUs).

    UsageError names the chips that can be compiled for.
    """
    chip = where.chip
    if chip.kind == "tpu":
        return _tpu(where)
    if chip.kind == "cpu":
        return Target("cpu", "cpu", where.count, "", int(chip.memory), {})
    if present:
        return Target(where.name, "gpu", where.count, "", int(chip.memory), {})
    if chip.name not in _GPU:
        raise UsageError(
            f"slice {where.name}: the compiler is not told enough of {chip.title} to compile "
            f"without one; it is of {', '.join((*_TPU, *_GPU))}, or give --present on a machine "
            "that has it"
        )
    if where.count > 1:
        raise UsageError(
            f"slice {where.name}: without the GPUs, programs are compiled for one GPU; several "
            "need --present on a machine that has them"
        )
    return Target(
        where.name, "gpu", where.count, f"1x1x{where.count}", int(chip.memory),
        {"target_config": _gpu_config(where)},
    )  # fmt: skip


def _tpu(where: Slice) -> Target:
    chip = where.chip
    if chip.name not in _TPU:
        raise UsageError(
            f"slice {where.name}: this compiler is not known to take {chip.title}; it takes "
            f"{', '.join(_TPU)}"
        )
    known, accelerator = _TPU[chip.name]
    options = {"accelerator_type": f"{accelerator}-{where.count * chip.cores_in_name}"}
    if where.count < _CHIPS_PER_HOST:
        options["chips_per_host_bounds"] = _bounds(where.topology)
    if chip.name in _PAIRED:
        options["chip_config_name"] = "megacore"
    return Target(
        where.name, "tpu", where.count, f"{known}:{where.topology}", int(chip.memory), options
    )


def _bounds(topology: str) -> str:
    sides = topology.split("x")
    return ",".join((*sides, *["1"] * (3 - len(sides))))


def _gpu_config(where: Slice) -> str:
    major, minor, cores, lanes, block, core, cache, clock = _GPU[where.chip.name]
    chip = where.chip
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {core}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {int(chip.bandwidth)}
  l2_cache_size: {cache}
  clock_rate_ghz: {clock}
  device_memory_size: {int(chip.memory)}
  shared_memory_per_block_optin: {block}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{chip.title}"
"""
