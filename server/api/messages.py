"""JetStream's messages read as asks and written from pieces."""

from protos import orchestrator_pb2 as pb
from server.api.ask import Ask, Names
from server.api.completions import Completion
from server.api.refusal import invalid
from server.api.reply import Piece
from server.scheduler import Finish

_REASONS = {
    Finish.STOP: pb.FinishReason.FINISH_REASON_STOP,
    Finish.LENGTH: pb.FinishReason.FINISH_REASON_LENGTH,
}
_NAMES = Names(text="text_content", ids="token_content", truncate="truncate_prompt")
_Sample = pb.DecodeResponse.StreamContent.Sample


def read_ask(wire: pb.DecodeRequest, deadline: float | None) -> Ask:
    """The ask of a message. Raises Refusal for what only this wire can say."""
    content = wire.WhichOneof("content")
    if content is None:
        raise invalid("content is absent; give text_content or token_content")
    if wire.num_samples not in (0, 1):
        raise invalid(
            f"num_samples is {wire.num_samples}; several samples are unsupported: "
            "leave it out or send 1, and send the request again for each sample"
        )
    if wire.lora_adapter_id:
        raise invalid("lora_adapter_id is set; adapters are unsupported: leave it empty")
    is_text = content == "text_content"
    sampling = wire.sampling
    return Ask(
        names=_NAMES,
        content=wire.text_content.text if is_text else list(wire.token_content.token_ids),
        max_tokens=wire.max_tokens,
        has_bos=wire.has_bos,
        truncate=wire.truncate_prompt,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=sampling.seed if sampling.HasField("seed") else None,
        stops=tuple(wire.stop),
        text=is_text,
        logprobs=wire.logprobs,
        ignore_eos=wire.ignore_eos,
        deadline=deadline,
    )


def write_piece(piece: Piece, ask: Ask, completion: Completion) -> pb.DecodeResponse:
    """One message of a stream; the last one carries usage and timing."""
    sample = _Sample(token_ids=[token.token_id for token in piece.tokens])
    if ask.text:
        sample.text = piece.text
    if ask.logprobs:
        sample.logprobs.extend(token.logprob or 0.0 for token in piece.tokens)
    message = pb.DecodeResponse()
    if piece.finish is not None:
        sample.finish_reason = _REASONS[piece.finish]
        usage, timing = completion.usage, completion.timing
        message.usage.prompt_tokens = usage.prompt
        message.usage.completion_tokens = usage.completion
        message.usage.truncated_tokens = usage.truncated
        message.timing.queue_seconds = timing.queue_seconds
        message.timing.prefill_seconds = timing.prefill_seconds
    message.stream_content.samples.append(sample)
    return message
