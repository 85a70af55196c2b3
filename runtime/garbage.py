"""The garbage collector, kept away from what stays as long as the process does."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collections() -> Iterator[None]:
    """Hundreds of thousands of objects come and few go: collections would only take time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def keep() -> None:
    """Whatever is alive now stays: no collection walks it until ``collect``.

    A full one would hold up the event loop for as long as it walks, 30 ms for the modules alone,
    and find nothing. What is dropped is still freed by its reference count.
    """
    gc.freeze()


def collect() -> None:
    """Free all cycles that nothing refers to, those among what was kept as well."""
    kept = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if kept:
        keep()
