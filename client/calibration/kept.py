"""The calibration that a host keeps."""

import json
from pathlib import Path
from typing import Any

from client.results.host import describe_host

DEFAULT_PATH = Path.home() / ".cache" / "loadstone" / "calibration.json"


# What a host is known by here.
_HOST = ("node", "cpu", "python")
# What a table shows of a floor.
_FLOOR = {
    "kind": str,
    "transport": str,
    "streams": int,
    "offered_tokens_per_s": float,
    "ttft_error_p99_ms": float,
    "itl_error_p99_ms": float,
}


def load_calibration(path: Path) -> dict[str, Any] | None:
    """What `client.calibrate` kept, if it was measured on a host like this one.

    None too where there is no such file, or it cannot be read as one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        host = describe_host()
        same = all(found["host"][key] == host[key] for key in _HOST)
        whole = all(
            isinstance(floor[name], kind)
            for floor in found["floors"]
            for name, kind in _FLOOR.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if same and whole else None
