"""The bytes each token id stands for, whatever kind of tokenizer it came from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SPACE = "\u2581"  # what sentencepiece writes for a space


@dataclass(frozen=True)
class Pieces:
    """Bytes by token id.

    `table[i]` is the text of token i as bytes, empty for control tokens. A token may hold half a
    character, so only joined bytes are decoded. `openings` says which tokens read differently at
    the start of a text (sentencepiece drops the space it put there). With `opening_repeats` that
    goes on until some text has come; otherwise it ends with the first token that is not empty.
    """

    table: Sequence[bytes]
    openings: Mapping[int, bytes] = field(default_factory=dict)
    opening_repeats: bool = False

    def join(self, ids: Iterable[int], opening: bool) -> tuple[bytes, bool]:
        """Returns the bytes of `ids`, and whether the next token still opens the text.

        Ids outside the table (a model's padded vocabulary has some) give no bytes.
        """
        parts = []
        for token_id in ids:
            piece = self.table[token_id] if 0 <= token_id < len(self.table) else b""
            if opening and piece:
                piece = self.openings.get(token_id, piece)
                opening = self.opening_repeats and not piece
            parts.append(piece)
        return b"".join(parts), opening

    def without_text(self, ids: Iterable[int]) -> "Pieces":
        """The same pieces, with no text for `ids`."""
        table = list(self.table)
        for token_id in ids:
            if 0 <= token_id < len(table):
                table[token_id] = b""
        return Pieces(table, self.openings, self.opening_repeats)

    def with_piece(self, token_id: int, piece: bytes) -> "Pieces":
        """The same pieces, and `piece` for `token_id`, which may be past the end of the table."""
        table = [*self.table, *[b""] * (token_id + 1 - len(self.table))]
        table[token_id] = piece
        return Pieces(table, self.openings, self.opening_repeats)


def byte_level_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a GPT-2 style vocabulary.

    Printable Latin-1 characters stand for themselves; the other 68 bytes, in order, are written
    with the code points from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}


def byte_level_piece(token: str, alphabet: Mapping[str, int]) -> bytes:
    """The bytes of a token in that alphabet; a token with a character outside it is plain text."""
    try:
        return bytes([alphabet[character] for character in token])
    except KeyError:
        return token.encode()


def fallback_byte(token: str) -> int | None:
    """The byte that a sentencepiece byte token such as <0x0A> stands for, or None."""
    if len(token) != 6 or not token.startswith("<0x") or not token.endswith(">"):
        return None
    try:
        return int(token[3:5], 16)
    except ValueError:
        return None
