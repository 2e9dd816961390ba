"""Limits of a jailed process, by setrlimit(2)."""

import resource


def limit(cpu_seconds: int, memory_bytes: int) -> None:
    """For good, children included. No file may be written and no process started.

    That no process may be started counts for every user but root.
    """
    wanted = {
        resource.RLIMIT_CPU: (cpu_seconds, cpu_seconds + 1),
        resource.RLIMIT_AS: (memory_bytes, memory_bytes),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (64, 64),
        resource.RLIMIT_NPROC: (0, 0),
    }
    for name in ("MEMLOCK", "MSGQUEUE", "NICE", "RTPRIO"):  # Linux has them
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            wanted[number] = (0, 0)
    for number, pair in wanted.items():
        most = resource.getrlimit(number)[1]  # nobody may raise it
        unlimited = most == resource.RLIM_INFINITY
        soft, hard = pair if unlimited else (min(each, most) for each in pair)
        resource.setrlimit(number, (soft, hard))
