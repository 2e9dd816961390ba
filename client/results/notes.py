"""What a reader must know to read the figures of a run rightly."""

from collections.abc import Sequence

from client.results.records import CountedBy, Outcome, Record


def notes(records: Sequence[Record], ignore_eos: bool) -> list[str]:
    """One sentence each, none when there is nothing out of the ordinary."""
    done = [record for record in records if record.outcome is Outcome.COMPLETED]
    candidates = [
        _counted_by_text(done),
        _shared_messages(done),
        _more_than_asked(done),
        _fewer_than_asked(done) if ignore_eos else None,
        _prompt_counts_differ(done),
        _answer_counts_differ(done),
    ]
    return [note for note in candidates if note]


def counted_by(records: Sequence[Record]) -> str | None:
    """Where the token counts of a run come from: token_ids, tokenizer or mixed."""
    sources = {record.counted_by.value for record in records if record.arrivals}
    return "mixed" if len(sources) > 1 else next(iter(sources), None)


def _counted_by_text(done: Sequence[Record]) -> str | None:
    count = sum(record.counted_by is CountedBy.TOKENIZER for record in done)
    if not count:
        return None
    return (
        f"{count} answers brought text without token ids or usage: their tokens were counted with "
        "the client's tokenizer"
    )


def _shared_messages(done: Sequence[Record]) -> str | None:
    messages = sum(len(record.arrivals) for record in done)
    tokens = sum(record.tokens for record in done)
    if tokens <= messages:
        return None
    return (
        f"{tokens / messages:.2f} tokens a message: tokens of one message share its arrival time, "
        "so ITL is 0 between them"
    )


def _more_than_asked(done: Sequence[Record]) -> str | None:
    count = sum(record.tokens > record.max_tokens for record in done)
    return f"{count} answers had more tokens than were asked for" if count else None


def _fewer_than_asked(done: Sequence[Record]) -> str | None:
    count = sum(record.tokens < record.max_tokens for record in done)
    if not count:
        return None
    return f"{count} answers had fewer tokens than were asked for, in spite of --ignore-eos"


def _prompt_counts_differ(done: Sequence[Record]) -> str | None:
    said = [record for record in done if record.server_prompt_tokens is not None]
    theirs = sum(record.server_prompt_tokens or 0 for record in said)
    ours = sum(record.prompt_tokens for record in said)
    if theirs == ours:
        return None
    return (
        f"the server counted {theirs} prompt tokens where the client's tokenizer counts {ours}: "
        "is --tokenizer the model's?"
    )


def _answer_counts_differ(done: Sequence[Record]) -> str | None:
    count = sum(
        record.server_completion_tokens not in (None, record.tokens)
        for record in done
        if record.counted_by is CountedBy.TOKEN_IDS
    )
    if not count:
        return None
    return f"{count} answers brought another number of tokens than the server says it made"
