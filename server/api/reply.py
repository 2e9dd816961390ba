"""The messages of one stream."""

from collections.abc import Sequence
from dataclasses import dataclass

from protos import orchestrator_pb2 as pb
from server.api.stops import StopFilter
from server.scheduler import Event, Failure, Finish, Request, Token
from tokenization import Detokenizer, Tokenizer

_REASONS = {
    Finish.STOP: pb.FinishReason.FINISH_REASON_STOP,
    Finish.LENGTH: pb.FinishReason.FINISH_REASON_LENGTH,
}
_Sample = pb.DecodeResponse.StreamContent.Sample


@dataclass(frozen=True)
class Want:
    """What a client wants to see. `truncated` counts prompt tokens that were dropped."""

    text: bool
    logprobs: bool
    stops: Sequence[str]
    truncated: int


class Reply:
    """Turns events of a request into messages.

    Every token id is sent as it comes, those that spell a stop string or end the sequence too, so
    the ids of a stream are as many as its usage says. Text waits until it is whole characters and
    cannot become a stop string. `finish` is set with the last message, `failure` if there is none.
    """

    def __init__(self, request: Request, want: Want, tokenizer: Tokenizer | None) -> None:
        self.finish: Finish | None = None
        self.failure: Failure | None = None
        self._request = request
        self._want = want
        self._sent = 0
        self._stops = StopFilter(want.stops)
        self._text: Detokenizer | None = None
        if tokenizer is not None and (want.text or want.stops):
            self._text = Detokenizer(tokenizer, continues=True)

    def take(self, events: Sequence[Event]) -> pb.DecodeResponse | None:
        """One message for all these events, or None when there is nothing to send."""
        tokens = [token for event in events for token in event.tokens]
        end = events[-1].end
        tokens, text = self._read(tokens)
        self._sent += len(tokens)
        if self._stops.met:
            self.finish = Finish.STOP
        elif isinstance(end, Failure):
            self.failure = end
        else:
            self.finish = end
        if self.finish is not None:
            text += self._rest()
        if not tokens and self.finish is None:
            return None
        return self._message(tokens, text)

    def _read(self, tokens: list[Token]) -> tuple[list[Token], str]:
        """The tokens up to a stop string, and the text that may be sent with them."""
        if self._text is None:
            return tokens, ""
        if not self._want.stops:
            return tokens, self._text.push([token.token_id for token in tokens])
        parts: list[str] = []
        for count, token in enumerate(tokens, start=1):
            parts.append(self._stops.push(self._text.push([token.token_id])))
            if self._stops.met:
                return tokens[:count], "".join(parts)
        return tokens, "".join(parts)

    def _rest(self) -> str:
        if self._text is None or self._stops.met:
            return ""
        return self._stops.push(self._text.flush()) + self._stops.flush()

    def _message(self, tokens: list[Token], text: str) -> pb.DecodeResponse:
        sample = _Sample(token_ids=[token.token_id for token in tokens])
        if self._want.text:
            sample.text = text
        if self._want.logprobs:
            sample.logprobs.extend(token.logprob or 0.0 for token in tokens)
        message = pb.DecodeResponse()
        if self.finish is not None:
            sample.finish_reason = _REASONS[self.finish]
            message.usage.CopyFrom(self._usage())
            message.timing.CopyFrom(self._timing())
        message.stream_content.samples.append(sample)
        return message

    def _usage(self) -> pb.Usage:
        return pb.Usage(
            prompt_tokens=len(self._request.prompt),
            completion_tokens=self._sent,
            truncated_tokens=self._want.truncated,
        )

    def _timing(self) -> pb.Timing:
        request = self._request
        if request.queued_at is None or request.prefill_at is None:
            return pb.Timing()
        first = request.first_token_at if request.first_token_at is not None else request.ended_at
        return pb.Timing(
            queue_seconds=request.prefill_at - request.queued_at,
            prefill_seconds=(first or request.prefill_at) - request.prefill_at,
        )
