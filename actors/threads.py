"""Threads for decoding, for files and for the index."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from greenroom.runtime.host import helpers


class Threads(NamedTuple):
    """Who waits for whom: decoding, which the stage waits for, for no disk; writing, which the ends
    of turns wait for, for no reading. All of them leave the GIL alone, so a few are enough.

    Committing has one: the connection of the index is used from one thread at a time."""

    decode: ThreadPoolExecutor
    write: ThreadPoolExecutor
    read: ThreadPoolExecutor
    commit: ThreadPoolExecutor

    @classmethod
    def start(cls) -> "Threads":
        """None runs before it is needed."""
        few = helpers()
        return cls(
            ThreadPoolExecutor(few, "greenroom-decode"),
            ThreadPoolExecutor(few, "greenroom-write"),
            ThreadPoolExecutor(few, "greenroom-read"),
            ThreadPoolExecutor(1, "greenroom-commit"),
        )

    def stop(self) -> None:
        """Wait for what runs."""
        for pool in self:
            pool.shutdown()
