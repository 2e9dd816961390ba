"""Fields of the public API, and of servers like this one, that are taken only as far as they
change nothing here.
"""

from collections.abc import Collection
from typing import Any

from server.api.http.fields import Fields, show
from server.api.refusal import invalid

# Say nothing about the tokens of the answer.
IGNORED = frozenset(
    {
        "include_reasoning",
        "metadata",
        "parallel_tool_calls",  # means something only with tools
        "prediction",
        "priority",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
# Would change the answer, so that only the values that do not are taken.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "add_special_tokens": (True,),
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "best_of": (),  # as many as n: read with it
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "lora_path": (),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "prompt_logprobs": (0,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}


def check_unserved(fields: Fields, served: Collection[str]) -> None:
    """Raises Refusal for a field that is set, is not in `served` and would change the answer."""
    for name in fields:
        if name in served or name in IGNORED:
            continue
        if name not in NEUTRAL:
            raise invalid(
                f"{show(name)} is not a field this server knows; it reads "
                f"{', '.join(sorted(served))}",
                name,
            )
        value, allowed = fields.get(name), NEUTRAL[name]
        if not any(_same(value, one) for one in allowed):
            instead = " or send " + " or ".join(map(show, allowed)) if allowed else ""
            raise invalid(
                f"{name} is {show(value)}, which is unsupported here: leave it out{instead}", name
            )


def _same(value: Any, allowed: Any) -> bool:
    # true == 1 in Python, and not in JSON
    return isinstance(value, bool) == isinstance(allowed, bool) and value == allowed
