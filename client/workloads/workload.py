"""Everything a run asks, fixed before it starts."""

import hashlib
import struct
from collections.abc import Iterator
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

    def digest(self) -> str:
        """SHA-256 over every request in order, in hexadecimal: equal for equal workloads.

        It covers ids, texts, token ids, max_tokens, messages, delays and due times; the same on
        every machine.
        """
        state = hashlib.sha256()
        for session in self.sessions:
            parts = _session_parts(session)
            # With its length before it, no part can pass for the end of another.
            state.update(b"".join(len(part).to_bytes(8, "little") + part for part in parts))
        return state.hexdigest()


def _session_parts(session: Session) -> Iterator[bytes]:
    yield _bytes(session.id)
    yield _floats(session.delays)
    yield b"" if session.due is None else _floats((session.due,))
    yield _integers((len(session.turns),))
    for prompt in session.turns:
        yield _bytes(prompt.id)
        yield _bytes(prompt.text)
        yield _integers(prompt.token_ids)
        yield _integers((prompt.max_tokens, len(prompt.messages)))
        for role, content in prompt.messages:
            yield _bytes(role)
            yield _bytes(content)


def _bytes(text: str) -> bytes:
    # Half a surrogate pair has no UTF-8; a JSON file can hold one.
    return text.encode("utf-8", "surrogatepass")


def _integers(values: tuple[int, ...]) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def _floats(values: tuple[float, ...]) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)
