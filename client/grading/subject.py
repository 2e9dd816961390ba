"""What a row is about: an engine opened for it, or another server."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from client.errors import UsageError
from client.grading.row import Row
from client.grading.settings import QualityOptions
from client.targets.in_process import InProcessTarget, LocalEngine
from client.targets.open import make_target
from client.targets.settings import ENDPOINTS, TargetSettings
from client.targets.target import Target
from tokenization import Tokenizer, default_model_path, load_tokenizer


@dataclass(frozen=True)
class Subject:
    """`engine` None: another server."""

    settings: TargetSettings
    engine: LocalEngine | None
    tokenizer: Tokenizer

    @property
    def summary(self) -> dict[str, Any] | None:
        """Sizes of the engine."""
        return None if self.engine is None else self.engine.summary

    def target(self, connections: int, watched: bool = False, **changes: Any) -> Target:
        """To be opened. `changes` of its settings. `watched`: answers are read as they come."""
        settings = replace(self.settings, connections=connections, **changes)
        if watched and settings.kind in ENDPOINTS:
            settings = replace(settings, transport="loop")  # a thread in C keeps them to the end
        if self.engine is not None:
            return InProcessTarget(settings, self.engine)
        return make_target(settings)


@contextmanager
def opened(options: QualityOptions, row: Row) -> Iterator[Subject]:
    """Until the end of the block, after which an engine's memory is free for the next.

    Raises `NotReadyError` when there is no engine to be had, `UsageError` without a tokenizer.
    """
    if options.local:
        engine = LocalEngine([*options.engine, *row.engine_options])
        if engine.tokenizer is None:
            raise UsageError("random weights know no text; give --checkpoint, or --tokenizer")
        yield Subject(options.target, engine, engine.tokenizer)
        del engine
        gc.collect()
        return
    path = options.tokenizer or default_model_path()
    try:
        tokenizer = load_tokenizer(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot load the tokenizer: {error}") from error
    yield Subject(options.target, None, tokenizer)
