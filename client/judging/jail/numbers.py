"""Numbers of the system calls that jailed code may make, by machine.

From the kernel's asm/unistd_64.h and asm-generic/unistd.h; a test compares where headers are there.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """`architecture` as a seccomp filter sees it; `numbers` by name.

    Those in GUARDED are allowed with some arguments, all others with any.
    """

    architecture: int
    numbers: dict[str, int]

    @property
    def free(self) -> tuple[str, ...]:
        """The names that are allowed with any argument."""
        return tuple(name for name in self.numbers if name not in GUARDED)


GUARDED = ("open", "openat", "fcntl", "ioctl", "prlimit64")

# The first are the most frequent: a filter is read from the top.
_X86_64 = {
    "read": 0, "write": 1, "mmap": 9, "munmap": 11, "brk": 12, "futex": 202, "clock_gettime": 228,
    "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "newfstatat": 262, "lseek": 8, "statx": 332,
    "open": 2, "openat": 257, "getdents64": 217, "getdents": 78, "readlink": 89, "readlinkat": 267,
    "access": 21, "faccessat": 269, "faccessat2": 439, "getcwd": 79, "statfs": 137, "fstatfs": 138,
    "pread64": 17, "readv": 19, "writev": 20, "fadvise64": 221, "dup": 32, "close_range": 436,
    "fcntl": 72, "ioctl": 16, "poll": 7, "ppoll": 271, "select": 23, "pselect6": 270,
    "mprotect": 10, "mremap": 25, "madvise": 28, "membarrier": 324, "rseq": 334,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "rt_sigpending": 127,
    "sigaltstack": 131, "restart_syscall": 219, "pause": 34, "alarm": 37, "setitimer": 38,
    "getitimer": 36, "nanosleep": 35, "clock_nanosleep": 230, "clock_getres": 229,
    "gettimeofday": 96, "time": 201, "times": 100, "sched_yield": 24, "sched_getaffinity": 204,
    "getcpu": 309, "set_robust_list": 273, "get_robust_list": 274, "set_tid_address": 218,
    "getpid": 39, "gettid": 186, "getppid": 110, "getpgrp": 111, "getpgid": 121, "getsid": 124,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getresuid": 118,
    "getresgid": 120, "getgroups": 115, "uname": 63, "sysinfo": 99, "getrusage": 98,
    "getrlimit": 97, "prlimit64": 302, "getrandom": 318, "exit": 60, "exit_group": 231,
}  # fmt: skip

_AARCH64 = {
    "read": 63, "write": 64, "mmap": 222, "munmap": 215, "brk": 214, "futex": 98,
    "clock_gettime": 113, "close": 57, "fstat": 80, "newfstatat": 79, "lseek": 62, "statx": 291,
    "openat": 56, "getdents64": 61, "readlinkat": 78, "faccessat": 48, "faccessat2": 439,
    "getcwd": 17, "statfs": 43, "fstatfs": 44, "pread64": 67, "readv": 65, "writev": 66,
    "fadvise64": 223, "dup": 23, "close_range": 436, "fcntl": 25, "ioctl": 29, "ppoll": 73,
    "pselect6": 72, "mprotect": 226, "mremap": 216, "madvise": 233, "membarrier": 283,
    "rseq": 293, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
    "rt_sigpending": 136, "sigaltstack": 132, "restart_syscall": 128, "setitimer": 103,
    "getitimer": 102, "nanosleep": 101, "clock_nanosleep": 115, "clock_getres": 114,
    "gettimeofday": 169, "times": 153, "sched_yield": 124, "sched_getaffinity": 123,
    "getcpu": 168, "set_robust_list": 99, "get_robust_list": 100, "set_tid_address": 96,
    "getpid": 172, "gettid": 178, "getppid": 173, "getpgid": 155, "getsid": 156, "getuid": 174,
    "getgid": 176, "geteuid": 175, "getegid": 177, "getresuid": 148, "getresgid": 150,
    "getgroups": 158, "uname": 160, "sysinfo": 179, "getrusage": 165, "getrlimit": 163,
    "prlimit64": 261, "getrandom": 278, "exit": 93, "exit_group": 94,
}  # fmt: skip

MACHINES = {"x86_64": Machine(0xC000003E, _X86_64), "aarch64": Machine(0xC00000B7, _AARCH64)}
