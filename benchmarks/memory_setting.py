"""How a model is served in a trial of memory."""

from dataclasses import dataclass

from capacity.work.setting import CACHES
from server.models.catalogue import catalogue
from server.quant.schemes import SCHEMES


@dataclass(frozen=True)
class Setting:
    """weights: a scheme. cache: "none" keeps keys and values in the compute type, or "int8".
    length: positions of a slot."""

    model: str
    weights: str
    cache: str
    length: int

    def __post_init__(self) -> None:
        rules = (
            ("model", self.model, catalogue()),
            ("weights", self.weights, SCHEMES),
            ("cache", self.cache, CACHES),
        )
        for what, value, allowed in rules:
            if value not in allowed:
                raise ValueError(f"{what}: {', '.join(allowed)}; got {value!r}")
        if self.length < 1:
            raise ValueError(f"cache length {self.length}; at least 1")

    @property
    def name(self) -> str:
        """As it is given on the command line."""
        return f"{self.model}:{self.weights}:{self.cache}:{self.length}"


def read_settings(text: str) -> tuple[Setting, ...]:
    """From names with commas. ValueError says what a name is made of."""
    return tuple(_read(word.strip()) for word in text.split(","))


def _read(name: str) -> Setting:
    parts = name.split(":")
    if len(parts) != 4 or not parts[3].isdigit():
        raise ValueError(
            f"MODEL:WEIGHTS:CACHE:LENGTH, such as smollm2-135m:int8:int8:1024; got {name!r}"
        )
    return Setting(parts[0], parts[1], parts[2], int(parts[3]))


DEFAULTS = read_settings(
    "smollm2-135m:none:none:1024,smollm2-135m:int8:int8:512,smollm2-135m:int8:none:2048,"
    "smollm2-135m:nf4:int8:4096,opt-1.3b:int8:int8:1024,clm-200m:nf4:none:512"
)
