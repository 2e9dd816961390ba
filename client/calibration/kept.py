"""The calibration that a host keeps."""

import json
from pathlib import Path
from typing import Any

from client.results.host import describe_host

DEFAULT_PATH = Path.home() / ".cache" / "loadstone" / "calibration.json"


def load_calibration(path: Path) -> dict[str, Any] | None:
    """What `client.calibrate` kept, if it was measured on a host like this one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        host = describe_host()
        same = all(found["host"].get(key) == host[key] for key in ("node", "cpu", "python"))
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return found if same else None
