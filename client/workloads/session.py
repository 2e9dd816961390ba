"""Requests that follow one another: a conversation, or a single prompt."""

from dataclasses import dataclass

from client.workloads.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Session:
    """Turns asked one after another, each `delay` seconds after the answer to the one before.

    `delays` runs along `turns`; the first is 0. Each turn's prompt carries the whole history, with
    the data set's answers in it. `due` is when the session starts, seconds from the start of the
    run, where the workload brings its own times (a trace), else None.
    """

    id: str
    turns: tuple[Prompt, ...]
    delays: tuple[float, ...]
    due: float | None = None


def single(prompt: Prompt, due: float | None = None) -> Session:
    """A session of one turn."""
    return Session(prompt.id, (prompt,), (0.0,), due)
