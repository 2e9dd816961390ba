"""The filter of system calls, run on paper: a machine for its instructions."""

import os
import platform
import re
import struct
from pathlib import Path

import pytest

from client.judging.jail.filter import build
from client.judging.jail.numbers import GUARDED, MACHINES

ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x00050001, 0x80000000
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
# asm-generic writes these under another name, or with two for 32 and 64 bits.
_OTHER_NAMES = {"fstatat": "newfstatat"}


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), machine: str = "") -> int:
    """What the kernel would make of a call; see linux/filter.h."""
    architecture = MACHINES[machine or "x86_64"].architecture
    values = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, architecture, 0, *values)
    lines = list(struct.iter_unpack("<HBBI", program))
    at, word = 0, 0
    for _ in range(len(lines)):
        code, then, otherwise, value = lines[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (word,) = struct.unpack_from("<I", data, value)
            continue
        held = {0x15: word == value, 0x35: word >= value, 0x45: bool(word & value)}[code]
        at += then if held else otherwise
    raise AssertionError("the program goes on for ever")


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def verdict(machine: str, name: str, *arguments: int) -> int:
    own = MACHINES[machine]
    return run(build(own), own.numbers[name], arguments, machine)


def test_what_is_listed_is_allowed_and_nothing_else(machine: str) -> None:
    own = MACHINES[machine]
    program = build(own)
    listed = {own.numbers[name] for name in own.free}
    guarded = {number for name, number in own.numbers.items() if name in GUARDED}
    for number in (*range(600), 1 << 30, (1 << 30) + 1, -1):
        if number not in guarded:
            found = run(program, number, (), machine)
            assert found == (ALLOWED if number in listed else REFUSED), number


def test_dangerous_calls_are_on_no_list(machine: str) -> None:
    """By name, so that a number put in the wrong place shows in the test of numbers below."""
    for name in MACHINES[machine].numbers:
        assert not re.match(
            r"(clone|fork|vfork|exec|socket|connect|bind|send|recv|kill|tkill|tgkill|ptrace|prctl"
            r"|mount|unshare|setns|chroot|pivot|unlink|rename|link|symlink|mk|rmdir|chmod|chown"
            r"|fch|trunc|ftrunc|ut|process_|memfd|io_uring|bpf|keyctl|shm|msg|sem|perf|userfaultfd"
            r"|set(uid|gid|res|re|fs|sid|pgid|rlimit)|pwrite|sendfile|splice|copy_file)",
            name,
        ), name


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [
        (os.O_RDONLY, True),
        (os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY, True),
        (os.O_PATH, True),
        (os.O_WRONLY, False),
        (os.O_RDWR | os.O_CLOEXEC, False),
        (os.O_RDONLY | os.O_CREAT, False),
        (os.O_RDONLY | os.O_TRUNC, False),
        (os.O_RDONLY | os.O_APPEND, False),
        (os.O_TMPFILE | os.O_RDWR, False),
        (3, False),
    ],
)
def test_files_are_opened_for_reading_alone(machine: str, flags: int, allowed: bool) -> None:
    wanted = ALLOWED if allowed else REFUSED
    assert verdict(machine, "openat", 0xFFFFFF9C, 0xDEAD, flags) == wanted
    # The kernel looks at the lower half alone, and so must the filter.
    assert verdict(machine, "openat", 0, 0, flags | 1 << 40) == wanted
    if "open" in MACHINES[machine].numbers:
        assert verdict(machine, "open", 0xDEAD, flags) == wanted


def test_limits_are_read_and_not_set(machine: str) -> None:
    assert verdict(machine, "prlimit64", 0, 7, 0, 0xDEAD) == ALLOWED
    assert verdict(machine, "prlimit64", 0, 7, 0xDEAD, 0) == REFUSED
    assert verdict(machine, "prlimit64", 0, 7, 0xDEAD << 32, 0) == REFUSED


def test_terminals_are_left_alone(machine: str) -> None:
    assert verdict(machine, "ioctl", 0, 0x5401) == ALLOWED
    assert verdict(machine, "ioctl", 0, 0x5412) == REFUSED  # types into a terminal
    assert verdict(machine, "fcntl", 0, 3) == ALLOWED
    assert verdict(machine, "fcntl", 0, 8) == REFUSED  # sends signals to another process


def test_calls_of_another_machine_end_the_process(machine: str) -> None:
    other = next(name for name in MACHINES if name != machine)
    assert run(build(MACHINES[machine]), 0, (), other) == KILLED


def test_numbers_are_the_kernels(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed (linux-libc-dev)")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    names = {_OTHER_NAMES.get(name, name): int(number) for name, number in found}
    if machine == "x86_64":
        names = {name: int(number) for name, number in found}
    for name, number in MACHINES[machine].numbers.items():
        assert names[name] == number, name


def test_this_machine_is_known() -> None:
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip(f"no list for {platform.machine()}: there programs are contained otherwise")
    assert platform.machine() in MACHINES
