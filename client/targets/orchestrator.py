"""The messages of JetStream's Orchestrator service, whoever carries them."""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from client.targets.exchange import MALFORMED, Answer, Piece
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
    pieces: list[Piece] = []
    finish: str | None = None
    usage: pb.Usage | None = None
    timing: pb.Timing | None = None
    failure: tuple[str, str] | None = None
    for arrived, raw in messages:
        try:
            message = pb.DecodeResponse.FromString(raw)
        except DecodeError:
            failure = MALFORMED, f"not a DecodeResponse: {raw[:60]!r}"
            break
        samples = message.stream_content.samples
        token_ids = tuple(token for sample in samples for token in sample.token_ids)
        pieces.append(Piece(arrived, token_ids, "".join(sample.text for sample in samples)))
        for sample in samples:
            finish = _FINISH.get(sample.finish_reason, finish)
        usage = message.usage if message.HasField("usage") else usage
        timing = message.timing if message.HasField("timing") else timing
    return Answer(
        pieces=pieces,
        finish=finish,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        queue=timing.queue_seconds if timing else None,
        prefill=timing.prefill_seconds if timing else None,
        failure=failure,
    )
