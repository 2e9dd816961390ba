"""System calls that a process may still make, by a seccomp filter it puts on itself.

What is not listed fails with EPERM: new processes and threads, sockets, signals to others, and
everything that changes a file. Manual page: seccomp(2).
"""

import ctypes
import os
import platform
import struct
import sys

from client.judging.jail.numbers import MACHINES, Machine
from client.judging.jail.system import call

_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _WITH_FILTER = 38, 22, 2
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # EPERM
# Classic BPF: load a word, jump, return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_FOREIGN_NUMBERS = 0x40000000  # x86's third interface, x32, would pass by another number
_WRITES = (
    os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
) | (getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY)  # fmt: skip
_FCNTL = (0, 1, 2, 3, 4, 1030)  # duplicate; get and set flags; duplicate with close-on-exec
_IOCTL = (0x5401, 0x5413, 0x5450, 0x5451)  # is it a terminal, its size; close-on-exec


def enter() -> None:
    """For good. OSError where there is no seccomp, or no list for this machine."""
    machine = MACHINES.get(platform.machine())
    if machine is None or sys.byteorder != "little" or not sys.maxsize > 2**32:
        raise OSError(f"system call numbers are not known for {platform.machine()}")
    program = build(machine)
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // 8
    header = struct.pack("@HxxxxxxP", count, ctypes.addressof(code))
    call("prctl", _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    call("prctl", _SET_SECCOMP, _WITH_FILTER, ctypes.c_char_p(header), 0, 0)


def build(machine: Machine) -> bytes:
    """The filter as instructions of 8 bytes."""
    numbers = machine.numbers
    lines = [_load(_ARCHITECTURE), _jump(_EQUAL, machine.architecture, 1, 0), _give(_KILL)]
    lines += [_load(_NUMBER), _jump(_AT_LEAST, _FOREIGN_NUMBERS, 0, 1), _give(_REFUSE)]
    for name in machine.free:
        lines += [_jump(_EQUAL, numbers[name], 0, 1), _give(_ALLOW)]
    guarded = {
        "open": _without_bits(1, _WRITES),
        "openat": _without_bits(2, _WRITES),
        "fcntl": _one_of(1, _FCNTL),
        "ioctl": _one_of(1, _IOCTL),
        "prlimit64": _null(2),  # asks for a limit and sets none
    }
    for name, check in guarded.items():
        if name in numbers:
            lines += [_jump(_EQUAL, numbers[name], 0, len(check)), *check]
    return b"".join([*lines, _give(_REFUSE)])


def _without_bits(argument: int, bits: int) -> list[bytes]:
    test = _jump(_ANY_BIT, bits, 1, 0)
    return [_load(_low(argument)), test, _give(_ALLOW), _give(_REFUSE)]


def _one_of(argument: int, values: tuple[int, ...]) -> list[bytes]:
    lines = [_load(_low(argument))]
    for value in values:
        lines += [_jump(_EQUAL, value, 0, 1), _give(_ALLOW)]
    return [*lines, _give(_REFUSE)]


def _null(argument: int) -> list[bytes]:
    lines = []
    for half in (_low(argument), _low(argument) + 4):
        lines += [_load(half), _jump(_EQUAL, 0, 1, 0), _give(_REFUSE)]
    return [*lines, _give(_ALLOW)]


def _low(argument: int) -> int:
    return _ARGUMENTS + 8 * argument


def _load(offset: int) -> bytes:
    return struct.pack("<HBBI", _LOAD, 0, 0, offset)


def _jump(kind: int, value: int, then: int, otherwise: int) -> bytes:
    return struct.pack("<HBBI", kind, then, otherwise, value)


def _give(result: int) -> bytes:
    return struct.pack("<HBBI", _RETURN, 0, 0, result)
