"""What Decode answers, over real sockets."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import pytest

from protos import orchestrator_pb2 as pb
from tests.api.served import BOS, BYTES, EOS, VOCAB, by_ids, by_text, serving
from tests.scheduler.small_engine import SmallEngine, echo, mixed

STOP, LENGTH = pb.FINISH_REASON_STOP, pb.FINISH_REASON_LENGTH


def speaking(text: str, *last: int, **shape) -> SmallEngine:
    """An engine that says `text` whatever it is asked, then `last`, over and over."""
    script = [*text.encode(), *last]
    return SmallEngine(
        vocab=VOCAB,
        eos_ids=frozenset({EOS}),
        choose=lambda prompt, index, sampling: script[index % len(script)],
        **shape,
    )


def test_ids_in_ids_out_and_every_token_once(orchestrator):
    answer = orchestrator.decode(by_ids([7, 8, 9], 7, has_bos=True))
    assert answer.ids == [7, 8, 9, 7, 8, 9, 7]
    assert answer.text == ""
    assert answer.finish == LENGTH
    assert answer.usage == pb.Usage(prompt_tokens=3, completion_tokens=7)


def test_text_in_text_and_ids_out(orchestrator):
    answer = orchestrator.decode(by_text("abc", 8))
    assert answer.ids == [BOS, *b"abc", BOS, *b"abc"]
    assert answer.text == "abcabc"
    assert answer.usage.prompt_tokens == 4


@pytest.mark.parametrize(
    "make", [by_text, lambda text, n, **f: by_ids(list(text.encode()), n, **f)]
)
@pytest.mark.parametrize("has_bos", [False, True])
def test_bos_is_added_unless_the_prompt_has_it(orchestrator, make, has_bos):
    answer = orchestrator.decode(make("ab", 3, has_bos=has_bos))
    assert answer.ids == (list(b"aba") if has_bos else [BOS, *b"ab"])


def test_only_the_last_message_tells_how_it_ended(orchestrator):
    answer = orchestrator.decode(by_ids([7, 8, 9], 20))
    for message in answer.messages[:-1]:
        assert not message.HasField("usage")
        assert not message.HasField("timing")
        assert message.stream_content.samples[0].finish_reason == 0
    last = answer.messages[-1]
    assert last.HasField("timing")
    assert last.timing.queue_seconds >= 0
    assert last.timing.prefill_seconds > 0


def test_the_end_of_sequence_is_sent_without_text():
    with serving(speaking("hi", EOS)) as (served, _):
        answer = served.decode(by_text("x", 50))
    assert answer.ids == [*b"hi", EOS]
    assert answer.text == "hi"
    assert answer.finish == STOP
    assert answer.usage.completion_tokens == 3


def test_ignore_eos_goes_on():
    with serving(speaking("hi", EOS)) as (served, _):
        answer = served.decode(by_text("x", 8, ignore_eos=True))
    assert answer.ids == [*b"hi", EOS, *b"hi", EOS, *b"hi"]
    assert answer.text == "hihihi"
    assert answer.finish == LENGTH


def test_half_characters_wait_for_their_other_half():
    said = "naïve 漢字 🙂 done"
    with serving(speaking(said, step_seconds=0.002)) as (served, _):
        answer = served.decode(by_text("x", len(said.encode())))
    assert answer.text == said
    assert all("\ufffd" not in sample.text for sample in answer.samples)
    assert len(answer.messages) > 5


def test_half_a_character_at_the_end_is_marked():
    with serving(speaking("é")) as (served, _):
        assert served.decode(by_text("x", 3)).text == "é\ufffd"


@pytest.mark.parametrize("tokens_per_decode", [1, 5])
def test_generation_ends_before_a_stop_string_and_frees_the_slot(tokens_per_decode):
    engine = speaking("one two three four ", slots=1, tokens_per_decode=tokens_per_decode)
    with serving(engine) as (served, thread):
        answer = served.decode(by_text("x", 10_000, stop=["zzz", "three"]))
        assert answer.text == "one two "
        assert bytes(answer.ids) == b"one two three"
        assert answer.finish == STOP
        assert answer.usage.completion_tokens == len("one two three")
        assert len(served.decode(by_text("x", 3)).ids) == 3
        value = thread.server.metrics.registry.get_sample_value
        assert value("jetstream_request_success_count_total") == 2
        assert value("loadstone_requests_cancelled_total") == 0


def test_stop_strings_work_for_ids_too():
    with serving(speaking("one two three four ")) as (served, _):
        answer = served.decode(by_ids([1], 10_000, stop=["two"]))
    assert bytes(answer.ids) == b"one two"
    assert answer.text == ""


def test_what_might_have_become_a_stop_string_is_sent_in_the_end():
    with serving(speaking("abcab")) as (served, _):
        answer = served.decode(by_text("x", 5, stop=["abd"]))
    assert answer.text == "abcab"
    assert answer.finish == LENGTH


def test_logprobs_come_one_for_each_token(orchestrator):
    answer = orchestrator.decode(by_ids([7, 8, 9], 6, has_bos=True, logprobs=True))
    assert answer.logprobs == [-(token_id % 7) / 8 for token_id in answer.ids]
    assert orchestrator.decode(by_ids([7], 2)).logprobs == []


def test_a_seed_repeats_and_its_absence_does_not():
    engine = SmallEngine(vocab=VOCAB, choose=mixed)
    with serving(engine) as (served, _):

        def first(**fields) -> int:
            return served.decode(by_ids([1], 1, sampling=pb.Sampling(**fields))).ids[0]

        assert first(seed=5) == first(seed=5) != first(seed=6)
        assert first(seed=0) == first(seed=97)  # the small engine counts modulo 97
        assert len({first(temperature=1) for _ in range(20)}) > 1


def test_sampling_reaches_the_engine():
    seen = []

    def choose(prompt, index, sampling):
        seen.append((sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed))
        return 1

    with serving(SmallEngine(vocab=VOCAB, choose=choose)) as (served, _):
        for given in (
            pb.Sampling(temperature=0.5, top_k=7, top_p=0.25, seed=2**64 - 1),
            pb.Sampling(temperature=1e-9, top_k=10**6, top_p=0, seed=3),
        ):
            served.decode(by_ids([1], 1, sampling=given))
    assert seen == [(0.5, 7, 0.25, 2**64 - 1), (0.0, 0, 1.0, 3)]


def test_a_long_prompt_is_cut_when_asked_and_keeps_bos(orchestrator):
    text = "".join(chr(97 + i % 26) for i in range(100))
    answer = orchestrator.decode(by_text(text, 14, truncate_prompt=True))
    assert answer.usage == pb.Usage(prompt_tokens=50, completion_tokens=14, truncated_tokens=51)
    assert answer.ids == [BOS, *text[-49:].encode()[:13]]


def test_without_rolling_prompt_and_generation_share_the_cache(orchestrator):
    assert len(orchestrator.decode(by_ids([1] * 4, 60, has_bos=True)).ids) == 60
    cut = orchestrator.decode(by_ids([1] * 9, 60, has_bos=True, truncate_prompt=True))
    assert cut.usage == pb.Usage(prompt_tokens=4, completion_tokens=60, truncated_tokens=5)


def test_a_prompt_longer_than_the_cache_is_served_by_a_rolling_server():
    engine = SmallEngine(vocab=VOCAB, choose=echo, cache_length=64, chunk=8)
    with serving(engine, rolling=True) as (served, _):
        prompt = [i % 250 for i in range(1000)]
        assert served.decode(by_ids(prompt, 1000, has_bos=True)).ids == prompt


@pytest.mark.parametrize(("length", "thread_name"), [(10, "Thread"), (10_000, "encode")])
def test_long_texts_are_encoded_outside_the_event_loop(length, thread_name):
    seen = []

    def encode(text: str) -> list[int]:
        seen.append(threading.current_thread().name)
        return list(text.encode())

    engine = SmallEngine(vocab=VOCAB, choose=echo, chunk=512)
    with serving(engine, replace(BYTES, encode_text=encode)) as (served, _):
        assert served.decode(by_text("x" * length, 3)).usage.prompt_tokens == length + 1
    (name,) = seen
    assert name.startswith(thread_name)


def test_a_text_that_goes_on_keeps_its_first_space():
    pieces = replace(BYTES.pieces, openings={ord(" "): b""})  # as sentencepiece does
    with serving(speaking(" hi"), replace(BYTES, pieces=pieces)) as (served, _):
        assert served.decode(by_text("x", 3)).text == " hi"


def test_a_server_without_tokenizer_adds_no_bos():
    with serving(SmallEngine(vocab=VOCAB, choose=echo), None) as (served, _):
        assert served.decode(by_ids([1, 2], 4)).ids == [1, 2, 1, 2]


@pytest.mark.parametrize("ask", [by_text("a"), by_ids([1], stop=["a"])])
def test_a_server_without_tokenizer_refuses_what_needs_one(ask):
    with serving(SmallEngine(vocab=VOCAB), None) as (served, _):
        with pytest.raises(grpc.RpcError, match="this server has no tokenizer") as refused:
            served.decode(ask)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_tokenizer_that_knows_more_than_the_model_is_reported():
    with serving(SmallEngine(vocab=50, choose=echo), BYTES) as (served, _):
        with pytest.raises(grpc.RpcError, match="tokenizer is not the model's") as refused:
            served.decode(by_text("abc", 4))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_streams_side_by_side_do_not_mix():
    engine = SmallEngine(vocab=VOCAB, choose=mixed, slots=5)
    with serving(engine) as (served, _), ThreadPoolExecutor(16) as pool:
        prompts = [[i % 97 + 1] * (i % 23 + 1) for i in range(120)]
        asks = [by_ids(p, 15, has_bos=True, sampling=pb.Sampling(seed=0)) for p in prompts]
        answers = list(pool.map(served.decode, asks))
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.ids == engine.expected(prompt, 15)
