"""What may leave the disk and in which order: random stores, and the rules that hold for all."""

from collections.abc import Iterable
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.eviction import (
    LOW_WATER,
    RESERVE_BYTES,
    Census,
    Kept,
    Stray,
    clear,
    quota_bytes,
)

NOW = 1000.0


@st.composite
def stores(draw: st.DrawFn) -> Census:
    """A forest of segments that were made one after the other, agents, pins and stray files."""
    segments: list[Kept] = []
    for number in range(draw(st.integers(0, 12))):
        parent = draw(st.integers(-1, number - 1))
        segments.append(
            Kept(
                str(number),
                segments[parent].id if parent >= 0 else None,
                draw(st.integers(0, 50)),
                draw(st.floats(0, NOW)),
            )
        )
    ids = [each.id for each in segments]
    some = st.sampled_from(ids or ["unknown"])
    strays = draw(st.lists(st.tuples(st.integers(0, 50), st.floats(0, NOW)), max_size=4))
    return Census(
        segments,
        [Stray(f"tmp/{n}", size, at) for n, (size, at) in enumerate(strays)],
        draw(st.dictionaries(some, st.floats(0, NOW), max_size=5)),
        draw(st.frozensets(some, max_size=3)),
    )


class Walk(NamedTuple):
    """What can be said of a store by walking from each segment to its root."""

    parents: dict[str, str | None]

    def up(self, start: str) -> list[str]:
        at: str | None = start
        path = []
        while at is not None:
            path.append(at)
            at = self.parents[at]
        return path

    def above(self, ends: Iterable[str]) -> set[str]:
        return {i for end in ends if end in self.parents for i in self.up(end)}


@given(stores(), st.integers(0, 600), st.floats(0, NOW))
def test_rules(census: Census, quota: int, keep_branches_s: float) -> None:
    walk = Walk({each.id: each.parent for each in census.segments})
    size = {each.id: each.num_bytes for each in census.segments}
    locked = walk.above(census.held)
    alive = locked | walk.above(census.heads)
    done = clear(census, NOW, quota, keep_branches_s)

    # Pins and running turns are sacred; what an agent stands on is never forgotten.
    assert not locked & {*done.collected, *done.evicted}
    assert not alive & {*done.collected}
    assert {*done.evicted} <= alive
    # Children go before their parents, and no row is left whose parent's is gone.
    for gone in (done.collected, done.evicted):
        for place, each in enumerate(gone):
            assert walk.parents[each] not in gone[:place]
    for each in walk.parents:
        if each not in done.collected:
            assert walk.parents[each] not in done.collected
    # Bytes never stand on bytes that are gone: they would be matched by nobody.
    stored = {i for i in size if size[i] and i not in {*done.collected, *done.evicted}}
    for each in done.evicted:
        assert not [i for i in stored if each in walk.up(i)[1:]]
    # No more goes than must, and enough does.
    freed = sum(size[i] for i in (*done.collected, *done.evicted))
    freed += sum(s.num_bytes for s in census.strays if s.path in done.strays)
    left = census.num_bytes - freed
    if census.num_bytes <= quota:
        assert not done.evicted
    else:
        untouchable = sum(size[i] for i in locked)
        assert left <= max(int(LOW_WATER * quota), untouchable)
    if done.evicted:
        assert left + size[done.evicted[-1]] > int(LOW_WATER * quota)
        assert len(done.strays) == len(census.strays)
        assert {*done.collected} == walk.parents.keys() - alive
    # Whoever had not waited long enough went because there was no room.
    old = {s.path for s in census.strays if NOW - s.modified > keep_branches_s}
    assert old <= {*done.strays}
    if census.num_bytes <= quota:
        assert {*done.strays} == old


def test_the_longest_unused_agent_goes_first_and_its_trunk_last() -> None:
    trunk = Kept("trunk", None, 10, 1.0)
    tips = [Kept(f"tip-{n}", "trunk", 10, 0.0) for n in range(3)]
    heads = {"tip-0": 300.0, "tip-1": 100.0, "tip-2": 200.0}
    census = Census([trunk, *tips], heads=heads)

    def evicted(quota: int) -> tuple[str, ...]:
        return clear(census, NOW, quota, 1e9).evicted

    assert evicted(40) == ()
    assert evicted(39) == ("tip-1",)
    assert evicted(23) == ("tip-1", "tip-2")
    assert evicted(0) == ("tip-1", "tip-2", "tip-0", "trunk")


def test_a_branch_is_kept_for_a_while_unless_room_is_short() -> None:
    old, young = Kept("old", None, 10, 100.0), Kept("young", None, 10, 900.0)
    head = Kept("head", None, 10, 0.0)
    census = Census([old, young, head], heads={"head": 50.0})
    assert clear(census, NOW, 100, 500.0).collected == ("old",)
    assert clear(census, NOW, 100, 1e9).collected == ()
    assert clear(census, NOW, 29, 1e9).collected == ("old",)
    assert clear(census, NOW, 15, 1e9).collected == ("old", "young")
    assert clear(census, NOW, 15, 1e9).evicted == ()


@given(st.integers(0, 1 << 45), st.integers(0, 1 << 45), st.integers(0, 1 << 45))
def test_the_quota_leaves_room_for_others(configured: int, used: int, free: int) -> None:
    quota = quota_bytes(configured, used, free)
    assert 0 <= quota <= max(0, used + free - RESERVE_BYTES)
    if configured:
        assert quota <= configured
    else:
        assert quota <= (used + free) / 2
