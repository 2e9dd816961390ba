"""What one process is to measure. Standard library only: other environments read it too."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

GENERATE, FORWARD, LOSS = "generate", "forward", "loss"


@dataclass(frozen=True)
class Model:
    """`config`: a folder with config.json, for random weights; `checkpoint`: a folder or a .gguf
    file with trained ones. One of the two is given."""

    name: str
    config: str | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        if (self.config is None) == (self.checkpoint is None):
            raise ValueError(f"model {self.name}: give a config or a checkpoint, and not both")


@dataclass(frozen=True)
class Ask:
    """One point. Lengths in tokens.

    kind: how weights are kept, in the engine's own words. prompts: lengths that the batch goes
    round through (generate). context: tokens of a row (forward, loss). new_tokens: tokens made of
    each row; for forward they are as many passes over the whole context. Timed runs go on until
    there were `timed` of them and `min_seconds` have passed. options: further options of our
    server. platform: cpu, gpu or tpu; None: the engine's choice.
    """

    engine: str
    kind: str
    attention: str
    task: str
    model: Model
    batch: int
    prompts: tuple[int, ...] = ()
    context: int = 0
    new_tokens: int = 0
    warmups: int = 1
    timed: int = 1
    min_seconds: float = 0.0
    seed: int = 0
    platform: str | None = None
    memory_limit: int | None = None
    cache_dir: str | None = None
    options: tuple[str, ...] = ()

    def as_json(self) -> str:
        """Read back by `ask_from_json`."""
        return json.dumps(asdict(self), indent=1)


def ask_from_json(text: str) -> Ask:
    """The inverse of `as_json`. ValueError, TypeError or KeyError for anything else."""
    values: dict[str, Any] = json.loads(text)
    unknown = sorted(set(values) - {each.name for each in fields(Ask)})
    if unknown:
        raise ValueError(f"unknown keys {unknown}; known: {[each.name for each in fields(Ask)]}")
    for name in ("prompts", "options"):
        values[name] = tuple(values.get(name, ()))
    return Ask(**{**values, "model": Model(**values["model"])})
