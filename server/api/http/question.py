"""What a body asks for, whatever its endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from server.api.ask import Ask, Conversation, Names
from server.api.config import ServerConfig
from server.api.http.fields import Fields, wrong
from server.api.refusal import Kind, Refusal, invalid

COMMON = frozenset(
    {
        "ignore_eos",
        "logprobs",
        "max_tokens",
        "model",
        "n",
        "return_token_ids",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_k",
        "top_p",
    }
)
_SEEDS = 2**64
# Odd and near 2**64 divided by the golden ratio: neighbouring seeds share no choice's seed.
_SEED_STEP = 0x9E3779B97F4A7C15
_STREAM_OPTIONS = {"include_usage", "continuous_usage_stats", "include_obfuscation"}


@dataclass(frozen=True)
class Question:
    """`asks` has one for each prompt; each is answered `choices` times."""

    asks: Sequence[Ask]
    choices: int
    stream: bool
    usage_at_end: bool
    usage_in_chunks: bool
    token_ids: bool

    def choice(self, ask: Ask, number: int) -> Ask:
        """The ask of one choice: the seed of the first is the one that was given."""
        if ask.seed is None or not number:
            return ask
        return replace(ask, seed=(ask.seed + number * _SEED_STEP) % _SEEDS)


def read_question(
    fields: Fields,
    contents: Sequence[str | Sequence[int] | Conversation],
    names: Names,
    max_tokens: int | None,
    logprobs: bool,
    config: ServerConfig,
) -> Question:
    """Reads what the endpoints have in common. Raises Refusal."""
    choices = _choices(fields, len(contents), config)
    stream = fields.boolean("stream")
    options = _stream_options(fields, stream)
    temperature, top_p = fields.number("temperature", 1.0), fields.number("top_p", 1.0)
    if top_p == 0:  # of all tokens only the likeliest is left
        temperature, top_p = 0.0, 1.0
    top_k, seed = fields.integer("top_k", 0), fields.integer("seed")
    asks = [
        Ask(
            names=names,
            content=content,
            max_tokens=max_tokens,
            has_bos=not isinstance(content, str),
            temperature=temperature,
            top_k=0 if top_k == -1 else top_k or 0,
            top_p=top_p,
            seed=None if seed is None else _seed(seed),
            stops=fields.texts("stop"),
            logprobs=logprobs,
            ignore_eos=fields.boolean("ignore_eos"),
        )
        for content in contents
    ]
    return Question(
        asks=asks,
        choices=choices,
        stream=stream,
        usage_at_end=options.boolean("include_usage"),
        usage_in_chunks=options.boolean("continuous_usage_stats"),
        token_ids=fields.boolean("return_token_ids"),
    )


def check_model(fields: Fields, served: str) -> None:
    """Refuses a model that is not the one served; without a name it is that one."""
    asked = fields.text("model")
    if asked is not None and asked != served:
        raise Refusal(
            Kind.NOT_FOUND,
            f"the model {asked[:100]!r} does not exist here; this server has {served!r}",
            "invalid",
            "model",
        )


def _choices(fields: Fields, prompts: int, config: ServerConfig) -> int:
    choices = fields.integer("n", 1)
    assert choices is not None
    if choices < 1:
        raise invalid(f"n is {choices}; it must be at least 1", "n")
    best_of = fields.get("best_of")
    if best_of is not None and best_of != choices:
        wrong("best_of", best_of, f"left out or n, which is {choices}: none is chosen from more")
    if prompts * choices > config.max_choices:
        raise invalid(
            f"{prompts} prompts with n {choices} ask for {prompts * choices} completions; at most "
            f"{config.max_choices} are allowed in a request",
            "n" if choices > 1 else "prompt",
        )
    return choices


def _stream_options(fields: Fields, stream: bool) -> Fields:
    options = fields.object("stream_options")
    if fields.get("stream_options") is not None and not stream:
        raise invalid("stream_options goes with stream true only; leave it out", "stream_options")
    for name in options:
        if name not in _STREAM_OPTIONS:
            raise invalid(
                f"stream_options.{name[:60]} is unknown; known: "
                f"{', '.join(sorted(_STREAM_OPTIONS))}",
                "stream_options",
            )
    return options


def _seed(given: int) -> int:
    if not -(2**63) <= given < _SEEDS:
        raise invalid(f"seed is {given}; it must be from -2**63 to 2**64 - 1", "seed")
    return given % _SEEDS
