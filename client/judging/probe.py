"""A program that tries what a candidate must not be able to do."""

import os
import socket
import tempfile
from pathlib import Path

from client.judging.exam import Jail, Sitting, Task, sit
from client.judging.protections import Containment
from client.judging.verdict import Outcome

# Returns what it got done. What it imports must be there for candidates too.
_PROGRAM = """
import collections, functools, hashlib, heapq, itertools, math, os, random, re, socket, string
import subprocess, typing


def attempt(folder, port, caller, memory):
    def read():
        for path in (folder + "/read", "/proc/%d/environ" % caller):
            try:
                with open(path, "rb") as file:
                    file.read(1)
            except OSError:
                continue
            return
        raise OSError

    def change():
        with open(folder + "/change", "a"):
            pass

    def create():
        for place in (folder, os.getcwd(), "/tmp", "/dev/shm"):
            try:
                os.mkdir(place + "/created")
            except OSError:
                continue
            return
        raise OSError

    def fork():
        if os.fork() == 0:
            os._exit(0)

    def signal():
        if caller == os.getpid():
            raise OSError  # in a namespace of its own, and the caller was the first in another
        os.kill(caller, 0)

    attempts = {
        "read a file or the environment of the caller": read,
        "opened a file of the caller for writing": change,
        "deleted a file of the caller": lambda: os.unlink(folder + "/delete"),
        "renamed a file of the caller": lambda: os.rename(folder + "/rename", folder + "/other"),
        "created something": create,
        "connected to a local port": lambda: socket.create_connection(("127.0.0.1", port), 1),
        "started a process": fork,
        "started a program": lambda: subprocess.run(["/bin/true"], check=True),
        "reached the caller with a signal": signal,
        "took more memory than allowed": lambda: bytearray(memory),
    }
    done = []
    for name, act in attempts.items():
        try:
            act()
        except (OSError, MemoryError, subprocess.SubprocessError):
            continue
        done.append(name)
    return done
"""
_TESTS = """
def check(candidate):
    done = candidate({folder!r}, {port}, {caller}, {memory})
    assert done == [], "; ".join(done)
"""


def try_out(jail: Jail) -> Containment:
    """What holds a program that tries to get out. Raises `JailError` when there is no jail."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        for name in ("read", "change", "delete", "rename"):
            (Path(folder) / name).write_text("the caller's own")
            (Path(folder) / name).chmod(0o600)
        tests = _TESTS.format(
            folder=folder,
            port=server.getsockname()[1],
            caller=os.getpid(),
            memory=jail.order.memory_bytes,
        )
        sitting = sit(_PROGRAM, Task("the trial", "", tests, "attempt"), jail)
    return Containment(sitting.held, sitting.given_up, _breaches(sitting))


def _breaches(sitting: Sitting) -> tuple[str, ...]:
    verdict = sitting.verdict
    if verdict.passed:
        return ()
    if verdict.outcome is Outcome.WRONG:
        return tuple(verdict.detail.split("; "))
    return (f"the trial did not end as it should: {verdict.outcome.value}, {verdict.detail}",)
