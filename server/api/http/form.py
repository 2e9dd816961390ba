"""How the answers of the two endpoints are written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.api.http.logprobs import Entry, chat_logprobs, completion_logprobs


@dataclass(frozen=True)
class Form:
    """The JSON around the text of a choice: `opening` text `closing`, in a whole answer and in the
    first and later chunks of a stream.
    """

    id_prefix: str
    whole_object: str
    chunk_object: str
    whole_opening: str
    first_opening: str
    later_opening: str
    whole_closing: str
    chunk_closing: str
    logprobs: Callable[[Sequence[Entry]], str]


COMPLETION = Form(
    id_prefix="cmpl-",
    whole_object="text_completion",
    chunk_object="text_completion",
    whole_opening='"text":',
    first_opening='"text":',
    later_opening='"text":',
    whole_closing="",
    chunk_closing="",
    logprobs=completion_logprobs,
)
CHAT = Form(
    id_prefix="chatcmpl-",
    whole_object="chat.completion",
    chunk_object="chat.completion.chunk",
    whole_opening='"message":{"role":"assistant","content":',
    first_opening='"delta":{"role":"assistant","content":',
    later_opening='"delta":{"content":',
    whole_closing=',"refusal":null}',
    chunk_closing="}",
    logprobs=chat_logprobs,
)
