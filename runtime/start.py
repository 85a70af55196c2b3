"""What a store knows when it starts: the index, read and mended, and the forest that it makes."""

from greenroom.runtime.forest import Forest
from greenroom.runtime.garbage import keep, no_collections
from greenroom.runtime.index import Index
from greenroom.runtime.mending import Recover, load
from greenroom.runtime.rows import Contents

MANY = 10_000
"""Segments from which on it pays to keep the garbage collector away from them."""


def remember(index: Index, fingerprint: str, recover: Recover) -> tuple[Contents, Forest]:
    """Everything. Blocking: about a second for 100,000 segments."""
    with no_collections():
        contents = load(index, recover)
        forest = Forest(fingerprint)
        for each in contents.segments:
            forest.add(each, stored=each.id not in contents.evicted)
    if len(forest) > MANY:
        keep()  # to walk a hundred thousand takes a tenth of a second
    return contents, forest
