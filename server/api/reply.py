"""What is said of a request, piece by piece."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.api.ask import Ask
from server.api.prompt import Prompt
from server.api.stops import StopFilter
from server.scheduler import Event, Failure, Finish, Request, Token
from tokenization import Detokenizer, Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens that came together, and the text that became final with them; `finish` is set with
    the last.
    """

    tokens: Sequence[Token]
    text: str
    finish: Finish | None


@dataclass(frozen=True)
class Usage:
    """Counts of tokens: read by the model (BOS included), sent, and dropped from the prompt."""

    prompt: int
    completion: int
    truncated: int


@dataclass(frozen=True)
class Timing:
    """Seconds in the queue, and from there to the first token."""

    queue_seconds: float = 0.0
    prefill_seconds: float = 0.0


class Reply:
    """Turns events of a request into pieces.

    Every token id is sent as it comes, those that spell a stop string or end the sequence too, so
    the ids of a stream are as many as its usage says. Text waits until it is whole characters and
    cannot become a stop string. `finish` is set with the last piece, `failure` if there is none.
    """

    def __init__(
        self, request: Request, ask: Ask, prompt: Prompt, tokenizer: Tokenizer | None
    ) -> None:
        self.finish: Finish | None = None
        self.failure: Failure | None = None
        self._request = request
        self._truncated = prompt.truncated
        self._wants_text = ask.text
        self._sent = 0
        self._stops = StopFilter(ask.stops) if ask.stops else None
        self._text: Detokenizer | None = None
        if tokenizer is not None and (ask.text or ask.stops):
            self._text = Detokenizer(tokenizer, continues=True)

    def take(self, events: Sequence[Event]) -> Piece | None:
        """One piece for all these events, or None when there is nothing to send."""
        tokens: Sequence[Token] = events[0].tokens
        if len(events) > 1:
            tokens = [token for event in events for token in event.tokens]
        end = events[-1].end
        tokens, text = self._read(tokens)
        self._sent += len(tokens)
        if self._stops is not None and self._stops.met:
            self.finish = Finish.STOP
        elif isinstance(end, Failure):
            self.failure = end
        else:
            self.finish = end
        if self.finish is not None:
            text += self._rest()
        if not tokens and self.finish is None:
            return None
        return Piece(tokens, text if self._wants_text else "", self.finish)

    @property
    def usage(self) -> Usage:
        """The counts so far."""
        return Usage(len(self._request.prompt), self._sent, self._truncated)

    @property
    def timing(self) -> Timing:
        """Where the time before the first token went; zeros before that is known."""
        request = self._request
        if request.queued_at is None or request.prefill_at is None:
            return Timing()
        first = request.first_token_at if request.first_token_at is not None else request.ended_at
        return Timing(
            queue_seconds=request.prefill_at - request.queued_at,
            prefill_seconds=(first or request.prefill_at) - request.prefill_at,
        )

    def _read(self, tokens: Sequence[Token]) -> tuple[Sequence[Token], str]:
        """The tokens up to a stop string, and the text that may be sent with them."""
        if self._text is None:
            return tokens, ""
        if self._stops is None:
            return tokens, self._text.push([token.token_id for token in tokens])
        parts: list[str] = []
        for count, token in enumerate(tokens, start=1):
            parts.append(self._stops.push(self._text.push([token.token_id])))
            if self._stops.met:
                return tokens[:count], "".join(parts)
        return tokens, "".join(parts)

    def _rest(self) -> str:
        if self._text is None:
            return ""
        if self._stops is None:
            return self._text.flush()
        if self._stops.met:
            return ""
        return self._stops.push(self._text.flush()) + self._stops.flush()
