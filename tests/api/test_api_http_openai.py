"""The unmodified OpenAI client against our server."""

import math

import openai
import pytest

from tests.api.http_rig import MODEL, web
from tests.api.served import BOS, EOS, VOCAB, by_ids, wait_until
from tests.api.test_api_decode import speaking
from tests.scheduler.small_engine import SmallEngine, mixed

IDS = {"return_token_ids": True}


@pytest.fixture(scope="module")
def server():
    """Echoes the prompt."""
    with web() as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    return server.openai()


def test_a_text_is_completed(client):
    answer = client.completions.create(model=MODEL, prompt="abc", max_tokens=8, extra_body=IDS)
    (choice,) = answer.choices
    assert choice.text == "abcabc"
    assert choice.token_ids == [BOS, *b"abc", BOS, *b"abc"]
    assert choice.finish_reason == "length"
    assert choice.logprobs is None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 8)
    assert answer.usage.total_tokens == 12
    assert answer.object == "text_completion"
    assert answer.model == MODEL
    assert answer.timing["queue_seconds"] >= 0
    assert answer.timing["prefill_seconds"] > 0


def test_sixteen_tokens_are_the_default_of_completions(client):
    assert client.completions.create(model=MODEL, prompt="abc").usage.completion_tokens == 16


def test_token_ids_are_read_as_they_are(client):
    answer = client.completions.create(model=MODEL, prompt=[7, 8, 9], max_tokens=4, extra_body=IDS)
    assert answer.choices[0].token_ids == [7, 8, 9, 7]
    assert answer.usage.prompt_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
def test_lists_of_prompts_are_answered_in_order(client, stream):
    asked = {"model": MODEL, "max_tokens": 4, "n": 2, "extra_body": IDS, "stream": stream}
    said: dict[int, list[int]] = {}
    for prompt in (["ab", "xyz"], [[BOS, 97, 98], [BOS, 120, 121, 122]]):
        answer = client.completions.create(prompt=prompt, **asked)
        said = {}
        for part in answer if stream else [answer]:
            for choice in part.choices:
                said.setdefault(choice.index, []).extend(choice.token_ids)
        first, second = [BOS, 97, 98, BOS], [BOS, 120, 121, 122]
        assert said == {0: first, 1: first, 2: second, 3: second}


def test_a_prompt_counts_once_for_all_its_choices(client):
    answer = client.completions.create(model=MODEL, prompt=["ab", "xyz"], max_tokens=3, n=2)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3 + 4, 12)


def test_a_stream_says_what_the_whole_says(client):
    asked = {"model": MODEL, "prompt": "naïve 漢字 🙂\n\"'\\", "max_tokens": 60, "extra_body": IDS}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.text for choice in choices) == whole.choices[0].text
    assert whole.choices[0].text.startswith(asked["prompt"])
    ids = [token_id for choice in choices for token_id in choice.token_ids]
    assert ids == whole.choices[0].token_ids
    assert [choice.finish_reason for choice in choices][:-1] == [None] * (len(choices) - 1)
    assert choices[-1].finish_reason == "length"
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].timing.keys() == {"queue_seconds", "prefill_seconds"}


@pytest.mark.parametrize("chat", [False, True])
def test_usage_comes_in_a_chunk_of_its_own_when_asked(client, chat):
    options = {"include_usage": True}
    asked = {"model": MODEL, "max_tokens": 9, "stream": True, "stream_options": options}
    if chat:
        said = client.chat.completions.create(messages=[{"role": "a", "content": "b"}], **asked)
    else:
        said = client.completions.create(prompt="ab", **asked)
    *chunks, last = said
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert not any(hasattr(chunk, "timing") for chunk in chunks)
    assert last.choices == []
    assert last.usage.completion_tokens == 9
    assert last.usage.prompt_tokens == (4 if chat else 3)
    assert last.timing["prefill_seconds"] > 0


def test_running_usage_comes_with_every_chunk_when_asked(client):
    options = {"continuous_usage_stats": True}
    chunks = list(
        client.completions.create(
            model=MODEL, prompt="ab", max_tokens=9, stream=True, stream_options=options
        )
    )
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 9


def test_a_conversation_goes_through_the_template(client):
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    text = "system:be brief;user:a\nb;"
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=len(text))
    (choice,) = answer.choices
    assert choice.message.content == text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    assert answer.usage.prompt_tokens == len(text)
    assert answer.object == "chat.completion"


def test_a_chat_streams_with_the_role_first(client):
    messages = [{"role": "user", "content": "hello"}]
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=messages, max_completion_tokens=11, stream=True
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.role for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert "".join(delta.content for delta in deltas) == "user:hello;"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert chunks[0].object == "chat.completion.chunk"


def test_an_answer_of_the_client_can_be_sent_back(client):
    asked = {"model": MODEL, "max_tokens": 5}
    said = client.chat.completions.create(messages=[{"role": "user", "content": "hi"}], **asked)
    messages = [said.choices[0].message.model_dump(), {"role": "user", "content": "more"}]
    again = client.chat.completions.create(messages=messages, **asked)
    assert again.usage.prompt_tokens == len("assistant:user:;user:more;")


@pytest.mark.parametrize(("rolling", "tokens"), [(True, 40), (False, 64 - 4)])
def test_a_chat_without_a_number_of_tokens_takes_what_is_left(rolling, tokens):
    settings = {"default_max_tokens": 40} if rolling else {}
    with web(rolling=rolling, **settings) as server:
        answer = server.openai().chat.completions.create(
            model=MODEL, messages=[{"role": "a", "content": "b"}]
        )
    assert answer.usage.completion_tokens == tokens


def test_logprobs_of_a_completion(client):
    asked = {"model": MODEL, "prompt": "aéb", "max_tokens": 10, "logprobs": 0, "extra_body": IDS}
    (choice,) = client.completions.create(**asked).choices
    given = choice.logprobs
    assert given.token_logprobs == [-(token_id % 7) / 8 for token_id in choice.token_ids]
    assert "".join(given.tokens) == choice.text
    for text, offset in zip(given.tokens, given.text_offset, strict=True):
        assert choice.text[offset : offset + len(text)] == text
    parts = [c.choices[0].logprobs for c in client.completions.create(**asked, stream=True)]
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [one for part in parts for one in getattr(part, name)] == getattr(given, name)


def test_logprobs_of_a_chat(client):
    messages = [{"role": "é", "content": "x"}]
    asked = {"model": MODEL, "messages": messages, "max_tokens": 5, "logprobs": True}
    (choice,) = client.chat.completions.create(**asked, top_logprobs=0, extra_body=IDS).choices
    content = choice.logprobs.content
    assert [one.logprob for one in content] == [-(i % 7) / 8 for i in choice.token_ids]
    assert bytes(byte for one in content for byte in one.bytes).decode() == choice.message.content
    assert all(math.isfinite(one.logprob) and one.top_logprobs == [] for one in content)
    chunks = client.chat.completions.create(**asked, stream=True)
    streamed = [one for chunk in chunks for one in chunk.choices[0].logprobs.content]
    assert streamed == content


@pytest.mark.parametrize("stop", ["three", ["zzz", "three"]])
@pytest.mark.parametrize("stream", [False, True])
def test_generation_ends_before_a_stop_string_and_frees_the_slot(stop, stream):
    engine = speaking("one two three four ", slots=1)
    with web(engine) as server:
        client = server.openai()
        asked = {"model": MODEL, "prompt": "x", "max_tokens": 10_000, "stop": stop}
        answer = client.completions.create(**asked, stream=stream)
        choices = [part.choices[0] for part in (answer if stream else [answer])]
        assert "".join(choice.text for choice in choices) == "one two "
        assert choices[-1].finish_reason == "stop"
        assert client.completions.create(model=MODEL, prompt="x", max_tokens=3).choices
        value = server.thread.server.metrics.registry.get_sample_value
        assert value("jetstream_request_success_count_total") == 2


def test_the_end_of_sequence_stops_unless_it_is_ignored():
    with web(speaking("hi", EOS)) as server:
        client = server.openai()
        asked = {"model": MODEL, "prompt": "x", "max_tokens": 6}
        (choice,) = client.completions.create(**asked).choices
        assert (choice.text, choice.finish_reason) == ("hi", "stop")
        (choice,) = client.completions.create(**asked, extra_body={"ignore_eos": True}).choices
        assert (choice.text, choice.finish_reason) == ("hihi", "length")


def test_a_seed_repeats_and_its_choices_differ():
    with web(SmallEngine(vocab=VOCAB, choose=mixed)) as server:
        client = server.openai()

        def firsts(seed: int, n: int) -> list[int]:
            answer = client.completions.create(
                model=MODEL, prompt=[1], max_tokens=1, seed=seed, n=n, extra_body=IDS
            )
            return [choice.token_ids[0] for choice in answer.choices]

        assert firsts(5, 4) == firsts(5, 4)
        assert len(set(firsts(5, 4))) == 4
        assert firsts(5, 4)[:1] == firsts(5, 1)
        assert firsts(-1, 1) == firsts(2**64 - 1, 1)


def test_sampling_reaches_the_engine_with_openais_defaults():
    seen = []

    def choose(prompt, index, sampling):
        seen.append((sampling.temperature, sampling.top_k, sampling.top_p))
        return 1

    with web(SmallEngine(vocab=VOCAB, choose=choose)) as server:
        client = server.openai()
        asked = {"model": MODEL, "prompt": "x", "max_tokens": 1}
        client.completions.create(**asked)
        client.completions.create(**asked, temperature=0)
        client.completions.create(**asked, temperature=0.5, top_p=0.25, extra_body={"top_k": 7})
        client.completions.create(**asked, top_p=0, extra_body={"top_k": -1})
    assert seen == [(1.0, 0, 1.0), (0.0, 0, 1.0), (0.5, 7, 0.25), (0.0, 0, 1.0)]


def test_the_model_is_listed(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "loadstone"
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="does not exist here") as refused:
        client.completions.create(model="other", prompt="x")
    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"


def test_a_model_name_may_hold_a_slash():
    with web(model_name="meta/llama") as server:
        assert server.openai().models.retrieve("meta/llama").id == "meta/llama"


def test_a_server_without_tokenizer_serves_ids():
    with web(tokenizer=None) as server:
        client = server.openai()
        (choice,) = client.completions.create(
            model=MODEL, prompt=[1, 2], max_tokens=3, logprobs=0, extra_body=IDS
        ).choices
        assert (choice.text, choice.token_ids) == ("", [1, 2, 1])
        assert choice.logprobs.tokens == ["token_id:1", "token_id:2", "token_id:1"]
        with pytest.raises(openai.BadRequestError, match="no tokenizer; send prompt with token"):
            client.completions.create(model=MODEL, prompt="x")
        with pytest.raises(openai.BadRequestError, match="prompt to /v1/completions"):
            client.chat.completions.create(model=MODEL, messages=[{"role": "u", "content": ""}])


def test_both_wires_give_the_same_tokens(server, client):
    import grpc

    from protos import orchestrator_pb2_grpc as pb_grpc

    with grpc.insecure_channel(server.thread.server.address) as channel:
        stub = pb_grpc.OrchestratorStub(channel)
        messages = list(stub.Decode(by_ids([5, 6, 7], 8, has_bos=True)))
    ids = [t for m in messages for s in m.stream_content.samples for t in s.token_ids]
    (choice,) = client.completions.create(
        model=MODEL, prompt=[5, 6, 7], max_tokens=8, extra_body=IDS
    ).choices
    assert choice.token_ids == ids


def test_a_stream_that_is_closed_early_frees_its_slot():
    with web(SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)) as server:
        client = server.openai()
        stream = client.completions.create(model=MODEL, prompt=[1], max_tokens=30_000, stream=True)
        next(stream)
        stream.close()
        assert client.completions.create(model=MODEL, prompt=[2], max_tokens=3).choices
        assert server.thread.server.engine_loop.stats().tokens < 2000
        wait_until(lambda: not len(server.thread.server._streams), "nothing is kept")


def test_a_client_that_gives_up_waiting_frees_its_slot():
    with web(SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)) as server:
        impatient = server.openai(timeout=0.3)
        with pytest.raises(openai.APITimeoutError):
            impatient.completions.create(model=MODEL, prompt=[1], max_tokens=30_000, n=2)
        stats = server.thread.server.engine_loop.stats
        wait_until(lambda: stats().decoding + stats().queued == 0, "slot and queue are free")
