"""Header blocks of HTTP/2, decoded by hpack."""

import hpack

_MOST_KNOWN = 64


class HeaderBlocks:
    """Of one connection, in order. A block that leaves the compression's memory as it was says the
    same next time, until another changes it: a server that answers alike is decoded once.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._known: dict[bytes, dict[bytes, str]] = {}

    def decode(self, block: bytes) -> dict[bytes, str]:
        """The fields by name, the last where one comes twice. Raises hpack.HPACKError and what
        else hpack lets escape for blocks that make no sense."""
        known = self._known.get(block)
        if known is not None:
            return known
        before = self._memory()
        fields = self._decoder.decode(block, raw=True)
        found = {bytes(name): str(value, "utf-8", "replace") for name, value in fields}
        if self._memory() != before or len(self._known) == _MOST_KNOWN:
            self._known.clear()
        else:
            self._known[block] = found
        return found

    def _memory(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        table = self._decoder.header_table
        return table.maxsize, list(table.dynamic_entries)
