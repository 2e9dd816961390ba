"""Files that may be read, by Linux's Landlock, which any process may put on itself.

Manual page: landlock(7). A kernel without it, or in which it is switched off, raises OSError.
"""

import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from client.judging.jail.system import call, system_call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
_READING = _EXECUTE | _READ_FILE | _READ_FOLDER
_NO_NEW_PRIVILEGES = 38
# Rights over files that each version knows: all that it can forbid is forbidden.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_NEWEST_FILE_RIGHTS = 16
_TCP = 0b11  # bind, connect: version 4
_SCOPES = 0b11  # abstract sockets, signals: version 6


def enter(view: Sequence[str]) -> None:
    """Only what lies under `view` can be read, nothing written. For good, and for children."""
    version = system_call(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 3:
        # Before, it could not forbid that a file is made shorter.
        raise OSError(f"Landlock is of version {version}; 3 or newer is needed")
    call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    ruleset = _ruleset(version)
    try:
        for path in view:
            if Path(path).is_dir():
                _allow(ruleset, path)
        system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _ruleset(version: int) -> int:
    files = (1 << _FILE_RIGHTS.get(version, _NEWEST_FILE_RIGHTS)) - 1
    network = _TCP if version >= 4 else 0
    scopes = _SCOPES if version >= 6 else 0
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = struct.pack("=QQQ", files, network, scopes)[:size]
    return system_call(_CREATE_RULESET, ctypes.c_char_p(attributes), size, 0)


def _allow(ruleset: int, path: str) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", _READING, folder)
        system_call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.c_char_p(rule), 0)
    finally:
        os.close(folder)
