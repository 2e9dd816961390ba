"""A view of the system of its own: few read-only folders, no network, no other processes.

Manual pages: namespaces(7), mount_namespaces(7), user_namespaces(7), pivot_root(2).
"""

import ctypes
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from client.judging.jail.system import call, system_call
from client.judging.jail.user import die_with_parent

_NEW_MOUNTS, _NEW_IPC = 0x00020000, 0x08000000
_NEW_USER, _NEW_PIDS, _NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
_EVERYTHING = _NEW_MOUNTS | _NEW_IPC | _NEW_PIDS | _NEW_NETWORK
_BIND, _RECURSIVE, _PRIVATE, _DETACH = 4096, 16384, 1 << 18, 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_READ_ONLY_NO_SUID_NO_DEVICES = 1 | 2 | 4
WORK = "/work"


def enter(view: Sequence[str], root: str) -> None:
    """Moves this process into new namespaces in which `view` is all there is, read-only.

    `root`: an empty folder to build the view in. Root needs no user namespace and gets none, so
    that it can become another user afterwards. OSError when the system does not allow it. The
    process is then useless and has to end.
    """
    _unshare()
    call("mount", None, b"/", None, ctypes.c_ulong(_RECURSIVE | _PRIVATE), None)
    call("mount", b"tmpfs", root.encode(), b"tmpfs", ctypes.c_ulong(0), b"size=64k,mode=755")
    for path in view:
        _show(Path(path), Path(root))
    (Path(root) / WORK[1:]).mkdir()
    _make_read_only(root)
    os.chdir(root)
    system_call(_PIVOT_ROOT[platform.machine()], b".", b".")
    # The old root now lies over the new one.
    call("umount2", b".", _DETACH)
    os.chdir(WORK)


def become_first() -> None:
    """Goes on in a child, the first process of the new namespace; when it ends all others do.

    This process only waits for it, and ends as it did, or when the judge does.
    """
    die_with_parent()
    child = os.fork()
    if child == 0:
        return
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))  # who reads from the child must see it end
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


def _unshare() -> None:
    if platform.machine() not in _PIVOT_ROOT:
        raise OSError(f"system call numbers are not known for {platform.machine()}")
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        try:
            call("unshare", _EVERYTHING)
        except PermissionError:
            pass  # root in a container without CAP_SYS_ADMIN
        else:
            return
    call("unshare", _EVERYTHING | _NEW_USER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _show(path: Path, root: Path) -> None:
    """A folder or a symbolic link under the same name in the new root."""
    place = root / path.relative_to("/")
    if place.exists() or place.is_symlink() or not path.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        place.symlink_to(path.readlink())
        return
    place.mkdir()
    flags = ctypes.c_ulong(_BIND | _RECURSIVE)
    call("mount", os.fsencode(path), os.fsencode(place), None, flags, None)


def _make_read_only(root: str) -> None:
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd; Linux 5.12.
    wanted = _READ_ONLY_NO_SUID_NO_DEVICES.to_bytes(8, sys.byteorder) + bytes(24)
    where = ctypes.c_char_p(root.encode())
    system_call(_MOUNT_SETATTR, _AT_FDCWD, where, _AT_RECURSIVE, wanted, len(wanted))
