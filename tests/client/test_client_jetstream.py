"""What goes on the wire to a JetStream server, and what is read from it."""

from dataclasses import replace

import pytest

from client.errors import UsageError
from client.targets.orchestrator import build_request, read_answer
from client.targets.settings import TargetSettings
from client.workloads.prompt import Prompt
from protos import orchestrator_pb2 as pb

Sample = pb.DecodeResponse.StreamContent.Sample
PROMPT = Prompt(id="p", text="hello", token_ids=(1, 7, 8), max_tokens=9, ids_have_bos=True)


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("0.0.0.0", "localhost:9000"),
        ("::", "localhost:9000"),
        ("example.org", "example.org:9000"),
        ("::1", "[::1]:9000"),
        ("[::1]", "[::1]:9000"),
    ],
)
def test_addresses(server, address):
    assert TargetSettings(server=server).address == address


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 0}, {"port": 65536}, {"connections": 0}, {"request_timeout": 0.0},
        {"request_timeout": float("nan")}, {"connect_timeout": -1.0}, {"send": "bytes"},
        {"temperature": -0.1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1},
    ],
)  # fmt: skip
def test_wrong_settings_name_the_value(wrong):
    (value,) = wrong.values()
    with pytest.raises(UsageError, match=f"got {value!r}"):
        TargetSettings(**wrong)


def test_text_is_sent_by_default_and_nothing_jetstream_does_not_know():
    request = build_request(PROMPT, TargetSettings())
    expected = pb.DecodeRequest(max_tokens=9)
    expected.text_content.text = "hello"
    assert request == expected


def test_templated_text_says_that_it_holds_bos():
    templated = replace(PROMPT, text_has_bos=True)
    assert build_request(templated, TargetSettings()).has_bos


def test_tokens_say_that_they_hold_bos():
    request = build_request(PROMPT, TargetSettings(send="tokens"))
    assert list(request.token_content.token_ids) == [1, 7, 8]
    assert request.has_bos


def test_sampling_goes_out_when_it_is_random():
    settings = TargetSettings(temperature=0.5, top_k=40, top_p=0.75, ignore_eos=True)
    request = build_request(PROMPT, settings)
    assert request.sampling == pb.Sampling(temperature=0.5, top_k=40, top_p=0.75)
    assert request.ignore_eos


def test_an_answer_holds_every_message_and_what_the_server_says_of_it():
    messages = [
        pb.DecodeResponse(initial_content=pb.DecodeResponse.InitialContent()),
        pb.DecodeResponse(
            stream_content=pb.DecodeResponse.StreamContent(
                samples=[Sample(text="ab", token_ids=[3, 4], finish_reason=pb.FINISH_REASON_STOP)]
            ),
            usage=pb.Usage(prompt_tokens=3, completion_tokens=2),
            timing=pb.Timing(queue_seconds=0.5, prefill_seconds=0.25),
        ),
    ]
    arrivals = [(float(at), message.SerializeToString()) for at, message in enumerate(messages)]
    answer = read_answer(arrivals)
    found = [(piece.time, piece.token_ids, piece.text) for piece in answer.pieces]
    assert found == [(0.0, (), ""), (1.0, (3, 4), "ab")]
    assert (answer.finish, answer.prompt_tokens, answer.completion_tokens) == ("stop", 3, 2)
    assert (answer.queue, answer.prefill) == (0.5, 0.25)


def test_a_server_without_our_fields_says_nothing():
    message = pb.DecodeResponse(
        stream_content=pb.DecodeResponse.StreamContent(samples=[Sample(token_ids=[3])])
    )
    answer = read_answer([(0.0, message.SerializeToString())])
    assert (answer.finish, answer.prompt_tokens, answer.queue) == (None, None, None)
