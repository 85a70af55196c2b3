"""Threads for decoding and for files."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple


class Threads(NamedTuple):
    """Who waits for whom: decoding, which the stage waits for, for no disk; writing, which the ends
    of turns wait for, for no reading. All of them leave the GIL alone, so a few are enough."""

    decode: ThreadPoolExecutor
    write: ThreadPoolExecutor
    read: ThreadPoolExecutor

    @classmethod
    def start(cls) -> "Threads":
        """None runs before it is needed."""
        names = ("greenroom-decode", "greenroom-write", "greenroom-read")
        return cls(*(ThreadPoolExecutor(min(4, os.cpu_count() or 1), name) for name in names))

    def stop(self) -> None:
        """Wait for what runs."""
        for pool in self:
            pool.shutdown()
