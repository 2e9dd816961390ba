"""Everything a run asks, fixed before it starts."""

from dataclasses import dataclass

from client.workloads.prompt import Prompt
from client.workloads.session import Session


@dataclass(frozen=True)
class Workload:
    """The sessions of a run in the order they start, and one line that describes them.

    `distinct` counts the prompts that differ, `most_uses` how often the most used one is used.
    """

    sessions: tuple[Session, ...]
    distinct: int
    most_uses: int
    description: str

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Every request, session by session."""
        return tuple(prompt for session in self.sessions for prompt in session.turns)
