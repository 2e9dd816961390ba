"""The C library's functions that Python does not offer."""

import ctypes
import errno
import os
from typing import Any

_LIBRARY = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """Calls a function by name. OSError when it fails, also when there is none of this name."""
    function = getattr(_LIBRARY, name, None)
    if function is None:
        raise OSError(errno.ENOSYS, f"this C library has no {name}")
    result: int = function(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def system_call(number: int, *arguments: Any) -> int:
    """A system call by number. Integers are passed as C longs. OSError when it fails."""
    converted = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return call("syscall", ctypes.c_long(number), *converted)
