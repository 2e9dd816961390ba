"""How many connections this process may hold."""

import resource


def allow_many_files() -> None:
    """Raises the limit of open files as far as an ordinary user may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
