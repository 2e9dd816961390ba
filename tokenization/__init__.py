"""Text to token ids and back, from any tokenizer file. Imports no JAX and no server."""

from tokenization.default_model import default_model_path, verify_checksum
from tokenization.detokenizer import Detokenizer
from tokenization.errors import TokenizerError
from tokenization.load import load_tokenizer
from tokenization.tokenizer import Tokenizer

__all__ = [
    "Detokenizer",
    "Tokenizer",
    "TokenizerError",
    "default_model_path",
    "load_tokenizer",
    "verify_checksum",
]
