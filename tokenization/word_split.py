"""How byte-level vocabularies cut text into words before merging, by GGUF's name for it.

The names are those of `tokenizer.ggml.pre`; the patterns are the models' own, as published in
their tokenizer.json.
"""

from dataclasses import dataclass

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Sequence, Split

from tokenization.errors import TokenizerError

# Llama 3's, for tiktoken too.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = LLAMA3.replace("{1,3}", "")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_TEKKEN = (
    rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

_PATTERNS = {
    "default": [r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
    "gpt-2": [_GPT2],
    "llama-bpe": [LLAMA3],
    "qwen2": [_QWEN2],
    "smollm": [r"\p{N}", _GPT2],
    "tekken": [_TEKKEN],
}
_SAME = {
    "deepseek-r1-qwen": "qwen2",
    "falcon3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "llama3": "llama-bpe",
    "olmo": "gpt-2",
    "phi-2": "gpt-2",
    "starcoder": "smollm",
}


@dataclass(frozen=True)
class WordSplit:
    """`splitter` cuts the text; with `whole_words` a word that is a token is not built by merges.

    `adds_bos`: models with this split start a text with BOS unless their file says otherwise.
    """

    splitter: PreTokenizer
    whole_words: bool
    adds_bos: bool


def word_split(name: str) -> WordSplit:
    """Returns the split of that name. Raises TokenizerError for a name it does not know."""
    patterns = _PATTERNS.get(_SAME.get(name, name))
    if patterns is None:
        raise TokenizerError(
            f"the tokenizer splits words as {name!r}, known are "
            f"{', '.join(sorted(_PATTERNS | _SAME))}; use the model's tokenizer.json"
        )
    steps: list[PreTokenizer] = [Split(Regex(pattern), "isolated") for pattern in patterns]
    steps.append(ByteLevel(add_prefix_space=False, use_regex=False))
    whole = patterns in ([LLAMA3], [_TEKKEN])
    return WordSplit(Sequence(steps), whole_words=whole, adds_bos=whole)
