"""How many files and sockets this process may have open."""

import resource

MAX_FILES = 10_240  # what macOS allows at most


def allow_many_sockets() -> None:
    """Raise the process's own limit of open files, which are sockets too, as far as it may be.

    Many systems start with 1,024 or fewer: idle connections would keep others out.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
