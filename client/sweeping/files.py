"""Files that are whole at every moment, in a folder that one run at a time writes to."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.errors import UsageError


def write_whole(path: Path, text: str) -> None:
    """Writes a file, or leaves it as it was. OSError when it cannot be written."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@contextmanager
def locked(folder: Path, what: str = "sweep") -> Iterator[None]:
    """Keeps other runs of a kind out of a folder. `UsageError` when there is one already."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"another {what} is at work in {folder}; give another --out"
            ) from error
        yield
