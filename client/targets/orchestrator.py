"""The messages of JetStream's Orchestrator service, whoever carries them."""

from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError

from client.targets.exchange import MALFORMED, Answer, IdCounts, Piece
from client.targets.settings import TargetSettings
from client.workloads.prompt import Prompt
from protos import orchestrator_pb2 as pb

DECODE = "/jetstream_proto.Orchestrator/Decode"
HEALTH_CHECK = "/jetstream_proto.Orchestrator/HealthCheck"
WANTS_KEY = (
    "the server at {} wants a key, or another one; --api-key-env names the variable that holds it"
)
_FINISH = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


def build_request(prompt: Prompt, settings: TargetSettings) -> pb.DecodeRequest:
    """The DecodeRequest for a prompt."""
    request = pb.DecodeRequest(max_tokens=prompt.max_tokens, ignore_eos=settings.ignore_eos)
    if settings.send == "tokens":
        request.token_content.token_ids.extend(prompt.token_ids)
        request.has_bos = prompt.ids_have_bos
    else:
        request.text_content.text = prompt.text
        request.has_bos = prompt.text_has_bos
    if settings.temperature > 0:
        request.sampling.temperature = settings.temperature
        request.sampling.top_k = settings.top_k
        request.sampling.top_p = settings.top_p
        if prompt.seed is not None:
            request.sampling.seed = prompt.seed
    return request


def read_health(raw: bytes) -> str:
    """Why the server cannot take requests, from its HealthCheckResponse; "" when it can."""
    try:
        live = pb.HealthCheckResponse.FromString(raw).is_live
    except DecodeError:
        return f"its answer to HealthCheck cannot be read ({raw[:60]!r})"
    return "" if live else "it answers that it is not live yet"


def read_answer(messages: Iterable[tuple[float, bytes]]) -> Answer:
    """Parses (time, message). Messages without text and tokens are kept as empty pieces."""
    messages = list(messages)
    reading = Reading()
    alike = _count_alike(messages)
    for arrived, raw in messages[reading.take_alike(messages[:alike]) :]:
        if not reading.take_raw(arrived, raw):
            reading.failure = MALFORMED, f"not a DecodeResponse: {raw[:60]!r}"
            break
    return reading.answer()


class Reading:
    """An answer as its messages are read, one after another."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.finish: str | None = None
        self.usage: pb.Usage | None = None
        self.timing: pb.Timing | None = None
        self.failure: tuple[str, str] | None = None

    def answer(self, by_ids: IdCounts | None = None) -> Answer:
        """All of it; with `by_ids` in place of the pieces."""
        usage, timing = self.usage, self.timing
        return Answer(
            pieces=() if by_ids else self.pieces,
            finish=self.finish,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            queue=timing.queue_seconds if timing else None,
            prefill=timing.prefill_seconds if timing else None,
            failure=self.failure,
            by_ids=by_ids,
        )

    def take_raw(self, arrived: float, raw: bytes) -> bool:
        """Adds a message. False: it cannot be read."""
        try:
            message = pb.DecodeResponse.FromString(raw)
        except DecodeError:
            return False
        self._take(arrived, message)
        return True

    def _take(self, arrived: float, message: pb.DecodeResponse) -> None:
        samples = message.stream_content.samples
        token_ids = tuple(token for sample in samples for token in sample.token_ids)
        self.pieces.append(Piece(arrived, token_ids, "".join(sample.text for sample in samples)))
        for sample in samples:
            self.finish = _FINISH.get(sample.finish_reason, self.finish)
        self.usage = message.usage if message.HasField("usage") else self.usage
        self.timing = message.timing if message.HasField("timing") else self.timing

    def take_alike(self, messages: Sequence[tuple[float, bytes]]) -> int:
        """Messages of one sample each: end to end they are one message of all their samples.

        Returns how many were taken: all, or none when one of them cannot be read.
        """
        try:
            whole = pb.DecodeResponse.FromString(b"".join(raw for _, raw in messages))
        except DecodeError:
            return 0
        for (arrived, _), sample in zip(messages, whole.stream_content.samples, strict=True):
            self.pieces.append(Piece(arrived, tuple(sample.token_ids), sample.text))
            if sample.finish_reason:
                self.finish = _FINISH.get(sample.finish_reason, self.finish)
        return len(messages)


def _count_alike(messages: Sequence[tuple[float, bytes]]) -> int:
    """How many messages at the start hold one sample each and nothing else, by their lengths."""
    count = 0
    for _, raw in messages:
        size = len(raw)
        # stream_content, all of the rest; samples, all of the rest. Both shorter than 128 bytes.
        if not 4 < size < 130 or raw[0] != 0x1A or raw[2] != 0x0A:
            break
        if raw[1] != size - 2 or raw[3] != size - 4:
            break
        count += 1
    return count
