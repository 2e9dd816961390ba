"""One turn's work for the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.engine.protocol import PrefillChunk
from server.scheduler.request import Request


@dataclass(frozen=True, slots=True)
class Prefill:
    """Chunks to read in one step, and whose they are (`requests` runs along `chunks`)."""

    chunks: Sequence[PrefillChunk]
    requests: Sequence[Request]

    @property
    def owners(self) -> Mapping[int, Request]:
        """Slot -> request, as it was when this was planned."""
        return {
            chunk.slot: request
            for chunk, request in zip(self.chunks, self.requests, strict=True)
            if chunk.last
        }


@dataclass(frozen=True, slots=True)
class Decode:
    """One decode step. `owners`: slot -> request, as it was when this was planned."""

    owners: Mapping[int, Request]


@dataclass(frozen=True, slots=True)
class Plan:
    """Slots to release first, then at most one dispatch."""

    release: Sequence[int]
    dispatch: Prefill | Decode | None
