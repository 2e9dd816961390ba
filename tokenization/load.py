"""Finds the tokenizer in a directory or file and loads it by its kind."""

from pathlib import Path

from tokenization.errors import TokenizerError
from tokenization.gguf_file import load_gguf
from tokenization.json_file import load_json
from tokenization.sentencepiece_file import load_sentencepiece
from tokenization.tiktoken_file import is_tiktoken, load_tiktoken
from tokenization.tokenizer import Tokenizer

_NAMES = ("tokenizer.json", "tokenizer.model")  # in the order of preference


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Loads the tokenizer at `path`, a model's directory or a single file.

    A directory holds tokenizer.json, tokenizer.model (sentencepiece, or tiktoken as Llama 3 has
    it) or one .gguf file. The kind of a file is told by its content, not its name. Special tokens
    and the chat template come from the small JSON files beside it, or from the GGUF file.

    Raises FileNotFoundError if there is nothing at `path` or no tokenizer in the directory, and
    TokenizerError if the file is broken or of a kind that is not supported.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no tokenizer at {path}: no such file or directory")
    file = _inside(path) if path.is_dir() else path
    with file.open("rb") as stream:
        head = stream.read(512)
    if head.startswith(b"GGUF"):
        return load_gguf(file)
    if head.lstrip().startswith(b"{"):
        return load_json(file)
    if is_tiktoken(head):
        return load_tiktoken(file)
    # A sentencepiece model starts with the tag of its first piece.
    if head.startswith(b"\n"):
        return load_sentencepiece(file)
    raise TokenizerError(
        f"{file} is no known kind of tokenizer: expected tokenizer.json, a sentencepiece or "
        "tiktoken tokenizer.model, or a .gguf file"
    )


def _inside(directory: Path) -> Path:
    for name in _NAMES:
        if (directory / name).is_file():
            return directory / name
    models = sorted(directory.glob("*.gguf"))
    if len(models) == 1:
        return models[0]
    found = f"{len(models)} .gguf files" if models else "none"
    raise FileNotFoundError(
        f"no tokenizer in {directory}: looked for {', '.join(_NAMES)} or one .gguf file, "
        f"found {found}"
    )
