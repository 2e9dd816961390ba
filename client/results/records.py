"""What became of each request, in seconds from the start of the run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from client.load.share import ShareResult
from client.results.arrivals import Arrivals
from client.targets.exchange import OK, Answer, Exchange, Piece
from client.workloads.prompt import Prompt

EMPTY = "empty stream"
TRUNCATED = "truncated stream"


class Outcome(Enum):
    """How a request ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    # The run was interrupted while the request was in flight, or before it was due.
    UNFINISHED = "unfinished"
    NOT_SENT = "not sent"


class CountedBy(Enum):
    """Where token counts come from."""

    # The ids in the messages.
    TOKEN_IDS = "token_ids"
    # The server's own count, where it sends text without ids.
    USAGE = "usage"
    # The client's tokenizer over the text, where the server sends neither.
    TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class Record:
    """One request. Times in seconds from the start of the run; None where it did not get there.

    `arrivals`: (time, tokens) of each message that brought tokens, in order. `cause` and `detail`
    say why it failed. Everything from `finish` on is what the server said, if it did.
    """

    index: int
    prompt_id: str
    prompt_tokens: int
    max_tokens: int
    scheduled: float | None
    sent: float | None
    ended: float | None
    arrivals: Arrivals
    outcome: Outcome
    cause: str = ""
    detail: str = ""
    counted_by: CountedBy = CountedBy.TOKEN_IDS
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish: str | None = None
    server_prompt_tokens: int | None = None
    server_completion_tokens: int | None = None
    server_queue: float | None = None
    server_prefill: float | None = None

    @cached_property
    def tokens(self) -> int:
        """How many tokens came back."""
        return int(self.arrivals.counts.sum())

    @cached_property
    def token_times(self) -> np.ndarray:
        """[tokens] when each token came, seconds from the start of the run."""
        return np.repeat(self.arrivals.times, self.arrivals.counts)

    @cached_property
    def gaps(self) -> np.ndarray:
        """[tokens - 1] seconds between each token and the one before it.

        Tokens of one message came together: 0 between them, and the whole wait before the first.
        """
        times = self.token_times
        return times[1:] - times[:-1]


def build_records(
    prompts: Sequence[Prompt],
    results: Sequence[ShareResult],
    encode: Callable[[str], Sequence[int]],
) -> tuple[Record, ...]:
    """Puts together what was asked, when, and what came back; one record for each prompt.

    `encode` counts the tokens of answers that bring text only. A stream that ends well but without
    a token is a failure, and so is one without a finish reason where the server gives reasons.
    """
    gives_reasons = any(answer.finish for result in results for answer in result.answers)
    records: dict[int, Record] = {}
    for result in results:
        for index, exchange, answer in zip(
            result.indices, result.exchanges, result.answers, strict=True
        ):
            prompt = prompts[index]
            arrivals, counted_by = count_tokens(answer, encode)
            since = arrivals.since(result.started)
            records[index] = _record(
                index, prompt, exchange, answer, since, counted_by, gives_reasons
            )
    return tuple(records[index] for index in sorted(records))


def _record(
    index: int,
    prompt: Prompt,
    exchange: Exchange,
    answer: Answer,
    arrivals: Arrivals,
    counted_by: CountedBy,
    gives_reasons: bool,
) -> Record:
    outcome, cause, detail = _outcome(
        exchange, answer, bool(arrivals), gives_reasons and not answer.finish
    )
    return Record(
        index=index,
        prompt_id=prompt.id,
        prompt_tokens=len(prompt.token_ids),
        max_tokens=prompt.max_tokens,
        scheduled=exchange.scheduled,
        sent=exchange.sent,
        ended=exchange.ended,
        arrivals=arrivals,
        outcome=outcome,
        cause=cause,
        detail=detail,
        counted_by=counted_by,
        text="".join(piece.text for piece in answer.pieces),
        token_ids=tuple(token for piece in answer.pieces for token in piece.token_ids),
        finish=answer.finish,
        server_prompt_tokens=answer.prompt_tokens,
        server_completion_tokens=answer.completion_tokens,
        server_queue=answer.queue,
        server_prefill=answer.prefill,
    )


def count_tokens(
    answer: Answer, encode: Callable[[str], Sequence[int]]
) -> tuple[Arrivals, CountedBy]:
    """Every message that brought tokens, and where the counts come from.

    Text without ids: as many tokens as the server says, one for each message where there are as
    many messages (some bring a token that makes no text yet); otherwise laid over the messages in
    proportion to their characters. Where it says nothing the whole text is tokenized: the pieces
    tokenized one by one would give too many.
    """
    if answer.by_ids is not None:
        return Arrivals(*answer.by_ids), CountedBy.TOKEN_IDS
    if len(answer.singles):
        return Arrivals.singles(answer.singles), CountedBy.USAGE
    if any(piece.token_ids for piece in answer.pieces):
        found = [(piece.time, len(piece.token_ids)) for piece in answer.pieces if piece.token_ids]
        return Arrivals.of(found), CountedBy.TOKEN_IDS
    said = max(answer.completion_tokens or 0, 0)
    texts = [piece for piece in answer.pieces if piece.text]
    if said:
        for pieces in (answer.pieces, texts):
            if len(pieces) == said:
                return Arrivals.singles([piece.time for piece in pieces]), CountedBy.USAGE
    if not texts:
        return Arrivals.of([]), CountedBy.TOKEN_IDS
    if said:
        return _laid_over(texts, said), CountedBy.USAGE
    whole = "".join(piece.text for piece in texts)
    return _laid_over(texts, max(len(encode(whole)), 1)), CountedBy.TOKENIZER


def _laid_over(texts: Sequence[Piece], total: int) -> Arrivals:
    whole = sum(len(piece.text) for piece in texts)
    counts, characters, before = [], 0, 0
    for piece in texts:
        characters += len(piece.text)
        # Rounded up: the first text brings the first token.
        upto = -(-total * characters // whole)
        counts.append((piece.time, upto - before))
        before = upto
    return Arrivals.of([(time, count) for time, count in counts if count])


def _outcome(
    exchange: Exchange, answer: Answer, has_tokens: bool, lacks_reason: bool
) -> tuple[Outcome, str, str]:
    if exchange.status is None:
        outcome = Outcome.UNFINISHED if exchange.sent is not None else Outcome.NOT_SENT
        return outcome, "", ""
    if answer.failure is not None:
        return Outcome.FAILED, *answer.failure
    if exchange.status != OK:
        return Outcome.FAILED, exchange.status, exchange.detail
    if not has_tokens:
        return Outcome.FAILED, EMPTY, ""
    if lacks_reason:
        return Outcome.FAILED, TRUNCATED, ""
    return Outcome.COMPLETED, "", ""
