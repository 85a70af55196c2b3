"""What a store knows when it starts: the index, read and mended, and the forest that it makes."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from greenroom.runtime.forest import Forest
from greenroom.runtime.index import Index
from greenroom.runtime.mending import Recover, load
from greenroom.runtime.rows import Contents

MANY = 10_000
"""Segments from which on it pays to keep the garbage collector away from them."""


def remember(index: Index, fingerprint: str, recover: Recover) -> tuple[Contents, Forest]:
    """Everything. Blocking: about a second for 100,000 segments."""
    with _no_collections():
        contents = load(index, recover)
        forest = Forest(fingerprint)
        for each in contents.segments:
            forest.add(each, stored=each.id not in contents.evicted)
    if len(forest) > MANY:
        # They stay as long as the process does. A full collection would walk them all, which holds
        # up the event loop for a tenth of a second each time, and find nothing.
        gc.freeze()
    return contents, forest


@contextmanager
def _no_collections() -> Iterator[None]:
    """Hundreds of thousands of objects come and none goes: collections would double the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
