import gc
import weakref
from collections.abc import Iterator

import pytest

from greenroom.runtime.garbage import collect, keep, no_collections


class Loop:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_nothing_is_collected_inside_and_the_collector_is_as_it_was_after() -> None:
    with no_collections():
        assert not gc.isenabled()
        with no_collections():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), no_collections():
        raise KeyError
    assert gc.isenabled()


def test_what_is_kept_is_walked_by_no_collection_until_it_is_asked_for() -> None:
    with no_collections():
        dropped = weakref.ref(Loop())
        keep()
    gc.collect()
    assert dropped() is not None
    collect()
    assert dropped() is None
    assert gc.get_freeze_count() > 0


def test_collecting_keeps_nothing_where_nothing_was_kept() -> None:
    dropped = weakref.ref(Loop())
    collect()
    assert dropped() is None
    assert gc.get_freeze_count() == 0
