"""A model served in one way on one slice."""

from dataclasses import dataclass

from capacity.hardware.slice import Slice
from capacity.work.software import LIVE, SOFTWARE, Software
from client.errors import UsageError
from server.models import sizes
from server.models.spec import ModelSpec
from server.quant.schemes import SCHEMES

SHARDINGS = ("model", "batch")
CACHES = ("none", "int8")
COMPUTES = {"bf16": 2, "fp32": 4}


@dataclass(frozen=True)
class Setting:
    """How a model is served.

    weights: a scheme of `server.quant.schemes`. cache: "none" keeps keys and values in the compute
    type. compute: of activations. slots and cache_length: None where a single request matters.
    chunk: prompt tokens of a prefill dispatch.
    """

    model: ModelSpec
    slice: Slice
    weights: str = "none"
    cache: str = "none"
    compute: str = "bf16"
    sharding: str = "model"
    slots: int = 1
    cache_length: int = 2048
    chunk: int = 512
    software: Software = SOFTWARE["loadstone"]

    def __post_init__(self) -> None:
        rules = (
            ("--quantize", self.weights, SCHEMES),
            ("--quantize-cache", self.cache, CACHES),
            ("--compute", self.compute, COMPUTES),
            ("--sharding", self.sharding, SHARDINGS),
        )
        for option, value, allowed in rules:
            if value not in allowed:
                raise UsageError(f"{option}: {', '.join(allowed)}; got {value!r}")
        for name in ("slots", "cache_length", "chunk"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1")
        if self.slots % self.replicas:
            raise UsageError(
                f"sharding by batch gives each of {self.replicas} chips as many slots; "
                f"{self.slots} slots do not divide: give a multiple of {self.replicas}"
            )

    @property
    def tags(self) -> frozenset[str]:
        """For parameters `name@tag` of a scheme, a model, or a way to read the cache."""
        return frozenset({self.weights, self.model.name, self.cache_reads})

    @property
    def compute_bytes(self) -> int:
        """Of an activation."""
        return COMPUTES[self.compute]

    @property
    def split(self) -> int:
        """Chips that share the weights."""
        return self.slice.count if self.sharding == "model" else 1

    @property
    def replicas(self) -> int:
        """Chips that each have slots of their own."""
        return self.slice.count if self.sharding == "batch" else 1

    @property
    def skips_idle(self) -> bool:
        """Whether rows without a token cost no products: our CPU kernel looks for rows of zeros,
        which the biases of a layer norm fill."""
        on_cpu = self.slice.chip.kind == "cpu"
        return self.software.skips_on_cpu and on_cpu and self.model.norm == "rms"

    @property
    def cache_reads(self) -> str:
        """What a decode step reads of the cache, as in `capacity.work.software`."""
        on_cpu = self.slice.chip.kind == "cpu"
        return LIVE if on_cpu and self.software.live_on_cpu else self.software.cache_reads

    @property
    def kept_positions(self) -> int:
        """Positions of a slot: the cache length, or all that the model can reach where that is
        less."""
        longest = self.model.longest_cache
        return self.cache_length if longest is None else min(longest, self.cache_length)

    @property
    def position_bytes(self) -> int:
        """Keys and values of a position of a slot, per chip."""
        return sizes.position_bytes(
            self.model, self.cache == "int8", self.compute_bytes, self.split
        )
