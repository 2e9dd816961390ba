"""Settings that the tests of this room share."""

from typing import Any

from capacity.hardware.chips import known_chips
from capacity.hardware.slice import find_slice
from capacity.work.setting import Setting
from server.models.catalogue import catalogue


def setting(model: str = "llama2-7b", where: str = "v5e-8", **values: Any) -> Setting:
    """A model on a slice; everything else as `Setting` has it."""
    return Setting(catalogue()[model], find_slice(where, known_chips()), **values)
