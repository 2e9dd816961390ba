"""How much a candidate may use."""

from dataclasses import dataclass

from client.errors import UsageError

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Of each of the two processes of an exam.

    cpu_seconds: processor time, whole seconds. wall_seconds: of waiting, sleep included.
    memory_mib: address space.
    """

    cpu_seconds: int = 10
    wall_seconds: float = 30.0
    memory_mib: int = 1024

    def __post_init__(self) -> None:
        if self.cpu_seconds < 1:
            raise UsageError(f"processor seconds of a candidate: 1 or more; got {self.cpu_seconds}")
        if not 0 < self.wall_seconds < 86400:
            raise UsageError(
                f"seconds of a candidate: above 0 and under a day; got {self.wall_seconds}"
            )
        if self.memory_mib < 64:
            raise UsageError(
                f"MiB of a candidate: 64 or more, Python itself needs about 30; got "
                f"{self.memory_mib}"
            )
