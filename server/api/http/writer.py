"""The JSON of answers and of the chunks of streams.

Written by hand around the text: a chunk costs one string to escape and one to put together, where
building and dumping a dictionary takes several times as long.
"""

import json
import secrets
import time
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quote

from server.api.completions import Completion
from server.api.http.form import Form
from server.api.http.logprobs import Entries
from server.api.http.question import Question
from server.api.reply import Piece, Timing, Usage
from server.scheduler import Finish, Token
from tokenization import Tokenizer

_REASONS = {Finish.STOP: "stop", Finish.LENGTH: "length"}
DONE = b"data: [DONE]\n\n"


class Head:
    """What all parts of one answer have in common: its id, the time and the model."""

    def __init__(self, form: Form, model: str) -> None:
        self._id = form.id_prefix + secrets.token_hex(12)
        self._created = int(time.time())
        self._model = json.dumps(model)

    def open(self, kind: str) -> str:
        """The start of an object of a kind, up to its choices."""
        return (
            f'{{"id":"{self._id}","object":"{kind}","created":{self._created},'
            f'"model":{self._model},"choices":['
        )


class ChunkWriter:
    """Writes the chunks of one choice, as server-sent events."""

    def __init__(
        self,
        form: Form,
        head: Head,
        index: int,
        question: Question,
        completion: Completion,
        tokenizer: Tokenizer | None,
    ) -> None:
        start = f'data: {head.open(form.chunk_object)}{{"index":{index},'
        self._opening = start + form.first_opening
        self._later_opening = start + form.later_opening
        self._closing = form.chunk_closing + ',"logprobs":'
        self._usage = ',"usage":null' if question.usage_at_end else ""
        self._plain_end = f',"finish_reason":null}}]{self._usage}}}\n\n'
        self._form = form
        self._question = question
        self._completion = completion
        self._entries = Entries(tokenizer) if question.asks[0].logprobs else None

    def write(self, piece: Piece) -> bytes:
        """The chunk of a piece."""
        logprobs, ids, end = "null", "", self._plain_end
        if self._entries is not None:
            logprobs = self._form.logprobs(self._entries.read(piece.tokens))
        if self._question.token_ids:
            ids = _ids(piece.tokens)
        if piece.finish is not None or self._question.usage_in_chunks:
            end = self._end(piece.finish)
        chunk = f"{self._opening}{quote(piece.text)}{self._closing}{logprobs}{ids}{end}"
        self._opening = self._later_opening
        return chunk.encode("ascii")

    def _end(self, finish: Finish | None) -> str:
        reason, usage, timing = "null", self._usage, ""
        if self._question.usage_in_chunks:
            usage = f',"usage":{_usage_json([self._completion.usage], 1)}'
        if finish is not None:
            reason = f'"{_REASONS[finish]}"'
            if not self._question.usage_at_end:
                timing = f',"timing":{_timing_json([self._completion.timing])}'
        return f',"finish_reason":{reason}}}]{usage}{timing}}}\n\n'


class ChoiceWriter:
    """Gathers the pieces of one choice of a whole answer."""

    def __init__(
        self, form: Form, index: int, question: Question, tokenizer: Tokenizer | None
    ) -> None:
        self._form = form
        self._index = index
        self._token_ids = question.token_ids
        self._entries = Entries(tokenizer) if question.asks[0].logprobs else None
        self._texts: list[str] = []
        self._tokens: list[Token] = []
        self._reason = ""

    def add(self, piece: Piece) -> None:
        """Takes the next piece."""
        self._texts.append(piece.text)
        self._tokens.extend(piece.tokens)
        if piece.finish is not None:
            self._reason = _REASONS[piece.finish]

    def json(self) -> str:
        """The choice, once its last piece was added."""
        logprobs = "null"
        if self._entries is not None:
            logprobs = self._form.logprobs(self._entries.read(self._tokens))
        ids = _ids(self._tokens) if self._token_ids else ""
        return (
            f'{{"index":{self._index},{self._form.whole_opening}{quote("".join(self._texts))}'
            f'{self._form.whole_closing},"logprobs":{logprobs}{ids},'
            f'"finish_reason":"{self._reason}"}}'
        )


def usage_chunk(form: Form, head: Head, completions: Sequence[Completion], choices: int) -> bytes:
    """The chunk without choices that tells the usage of all of them."""
    start = f"data: {head.open(form.chunk_object)}"
    return f"{start}{_whole_end(completions, choices)}\n\n".encode("ascii")


def whole_answer(
    form: Form,
    head: Head,
    written: Sequence[ChoiceWriter],
    completions: Sequence[Completion],
    choices: int,
) -> bytes:
    """The body of an answer that is no stream."""
    inside = ",".join(one.json() for one in written)
    start = head.open(form.whole_object)
    return f"{start}{inside}{_whole_end(completions, choices)}".encode("ascii")


def _whole_end(completions: Sequence[Completion], choices: int) -> str:
    usage = _usage_json([one.usage for one in completions], choices)
    return f'],"usage":{usage},"timing":{_timing_json([one.timing for one in completions])}}}'


def _usage_json(usages: Sequence[Usage], choices: int) -> str:
    # A prompt counts once for its choices, which stand together.
    prompt = sum(usage.prompt for usage in usages[::choices])
    completion = sum(usage.completion for usage in usages)
    return (
        f'{{"prompt_tokens":{prompt},"completion_tokens":{completion},'
        f'"total_tokens":{prompt + completion}}}'
    )


def _timing_json(timings: Sequence[Timing]) -> str:
    # Of several choices, the longest wait of each kind.
    queue = max(timing.queue_seconds for timing in timings)
    prefill = max(timing.prefill_seconds for timing in timings)
    return f'{{"queue_seconds":{queue:.6f},"prefill_seconds":{prefill:.6f}}}'


def _ids(tokens: Sequence[Token]) -> str:
    if len(tokens) == 1:
        return f',"token_ids":[{tokens[0].token_id}]'
    return f',"token_ids":[{",".join(str(token.token_id) for token in tokens)}]'
