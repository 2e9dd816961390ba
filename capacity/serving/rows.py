"""The requests of a run, from the rows beside its record."""

import json
from pathlib import Path

from client.errors import UsageError


def completed_lengths(rows: Path) -> list[tuple[int, int]]:
    """Prompt and answer of each completed request, in order. UsageError when there are none."""
    try:
        lines = rows.read_text(encoding="utf-8").splitlines()
        requests = [json.loads(line) for line in lines]
        pairs = [
            (int(each["input_len"]), int(each["output_len"]))
            for each in requests
            if each["outcome"] == "completed"
        ]
    except OSError as error:
        raise UsageError(f"cannot read the rows {rows}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{rows}: not the rows of a run: {error!r}") from error
    if not pairs:
        raise UsageError(f"{rows}: no request completed")
    return pairs
