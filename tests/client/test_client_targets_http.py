"""The HTTP target against a server that does everything right, and everything wrong."""

import pytest
from http_asked import PIECES
from http_scripts import SCRIPTS
from http_target_rig import DONE, LOST, MALFORMED, TEXT, TIMEOUT, TWO, asked, settings_for
from target_rig import prompt, run, summary, until

from client.results.records import CountedBy
from client.targets.exchange import Exchange
from client.targets.open import make_target

USAGE, TOKENIZER, IDS = CountedBy.USAGE, CountedBy.TOKENIZER, CountedBy.TOKEN_IDS
BYTES = len(TEXT.encode())  # of the test's tokenizer
FAILURE = ("failed", "error in the stream")
# What each script must become: outcome, text, tokens, and who counted those of completed ones.
EXPECTED = {
    **dict.fromkeys(
        (
            "tokens", "cuts", "several", "crlf", "comments", "nodone", "usageeach", "timed",
            "toend", "closing", "continued", "drip", "twice", "document", "pretty",
        ),
        (DONE, TEXT, 8, USAGE),
    ),
    "nousage": (DONE, TEXT, BYTES, TOKENIZER),
    "usagenull": (DONE, TEXT, BYTES, TOKENIZER),
    "emptytext": (DONE, "é😀b" * 2, 8, USAGE),
    "ids": (DONE, TEXT, 16, IDS),
    "reasoning": (DONE, "hmhm" + TEXT, 4 + BYTES, TOKENIZER),
    "errorevent": (FAILURE, TWO, None, None),
    "errorobject": (FAILURE, TWO, None, None),
    "errorline": (FAILURE, TWO, None, None),
    "cutoff": (("failed", "truncated stream"), TWO, None, None),
    "toendcut": (MALFORMED, TWO, None, None),
    "nothing": (("failed", "empty stream"), "", None, None),
    "busy": (("failed", "HTTP 429"), "", None, None),
    "failing": (("failed", "HTTP 500"), "", None, None),
    "stranger": (("failed", "HTTP 401"), "", None, None),
    "elsewhere": (("failed", "HTTP 307"), "", None, None),
    "emptied": (("failed", "HTTP 204"), "", None, None),
    "page": (MALFORMED, "", None, None),
    "halfchunk": (LOST, TWO, None, None),
    "shortened": (LOST, TWO, None, None),
    "slammed": (LOST, TWO, None, None),
    "hangup": (LOST, "", None, None),
    "garbage": (MALFORMED, "", None, None),
    "badchunk": (MALFORMED, TWO, None, None),
    "badevent": (MALFORMED, TWO + PIECES[0], None, None),
    "badline": (MALFORMED, TEXT, None, None),
    "badids": (MALFORMED, TEXT, None, None),
    "deep": (MALFORMED, "", None, None),
    "switched": (MALFORMED, "", None, None),
    "zipped": (MALFORMED, "", None, None),
    "silent": (TIMEOUT, "", None, None),
    "headersonly": (TIMEOUT, "", None, None),
    "stuck": (TIMEOUT, TWO, None, None),
    "endless": (TIMEOUT, "", None, None),
}  # fmt: skip
DETAILS = {
    "errorevent": "out of memory",
    "errorobject": "out of memory",
    "errorline": "out of memory",
    "busy": "slow down",
    "failing": "<html><body>\nBad gateway\n</body></html>",
    "stranger": "who are you?",
    "elsewhere": "/v2/completions",
    "zipped": "the answer is encoded (gzip), which was not asked for",
    "switched": "another protocol",
    "halfchunk": "closed before the answer was whole",
    "silent": "no end within 1.5 s",
}
TRANSPORTS = ["fast", "loop"]


def test_every_script_is_expected():
    assert EXPECTED.keys() == SCRIPTS.keys() - {"told"}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("kind", "loop"), [("openai", "uvloop"), ("openai-chat", "asyncio")])
def test_every_script_ends_as_it_should_and_harms_no_other(web, kind, loop, transport):
    """All at once, each beside a good one, over connections that they share."""
    prompts = [prompt(f"{each} please") for script in EXPECTED for each in (script, "tokens")]
    changes = {"kind": kind, "request_timeout": 1.5, "transport": transport}
    records = asked(web.port, prompts, loop=loop, **changes)
    for record in records:
        name = record.prompt_id.split(" ")[0]
        outcome, text, tokens, counted_by = EXPECTED[name]
        assert (name, *summary(record)[:2]) == (name, *outcome), record.detail
        assert (name, record.text) == (name, text)
        if outcome == DONE:
            assert (name, record.tokens, record.counted_by) == (name, tokens, counted_by)
            assert record.finish in ("length", "stop")
        assert DETAILS.get(name, record.detail) == record.detail
        times = [record.sent, *(time for time, _ in record.arrivals), record.ended]
        assert times == sorted(times)
    by_name = {record.prompt_id.split(" ")[0]: record for record in records}
    assert by_name["ids"].token_ids == tuple(
        each for index in range(8) for each in (index, index + 100)
    )
    assert (by_name["timed"].server_queue, by_name["timed"].server_prefill) == (0.25, 0.5)
    assert by_name["tokens"].server_prompt_tokens == 3
    # Stamped as they came.
    assert len({time for time, _ in by_name["tokens"].arrivals}) > 1
    assert len({time for time, _ in by_name["several"].arrivals}) == 1


@pytest.mark.parametrize("script", [each for each in EXPECTED if each != "tokens"])
def test_a_connection_is_fit_for_the_next_request_whatever_came_before(web, script):
    """One after another on one connection, where it is still there."""

    async def in_turn():
        target = make_target(settings_for(web.port, connections=1, request_timeout=1.0))
        await target.open(lambda reason: None)
        statuses = []
        for text in (script, "tokens", "tokens"):
            exchange = Exchange()
            await target.ask(target.build(prompt(text)), exchange)
            statuses.append(exchange.status)
            if text in ("twice", "closing"):  # what they do after their answer has to arrive
                await until(lambda: not target._pool._idle)
        held = len(target._pool._all), len(target._pool._idle)
        await target.close()
        await until(lambda: not target._pool._all)
        return statuses, held, len(target._pool._idle)

    statuses, held, after = run(in_turn())
    assert statuses[1:] == ["OK", "OK"]
    assert held[0] <= 2
    assert held[1] <= held[0]
    assert after == 0
