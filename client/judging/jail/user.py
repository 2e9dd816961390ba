"""Rights that a jailed process gives up."""

import ctypes
import os
import struct

from client.judging.jail.system import call

_NOBODY = 65534
_CAPABILITIES_3 = 0x20080522
_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES, _KILL = 1, 38, 9


def become_nobody() -> None:
    """Root becomes a user who owns nothing. OSError where root may not."""
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def drop_capabilities() -> None:
    """All of them, those in a user namespace too; none can come back."""
    call("prctl", _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    call("capset", ctypes.c_char_p(header), ctypes.c_char_p(bytes(24)))


def die_with_parent() -> None:
    """This process is killed when the one that started it ends. Changing user undoes it."""
    call("prctl", _SET_PARENT_DEATH_SIGNAL, _KILL, 0, 0, 0)
