"""A round of the custodian's in a store that no server holds."""

import msgspec

from greenroom.runtime.census import Plan, plan
from greenroom.runtime.index import Index
from greenroom.runtime.vault import Vault


class Swept(msgspec.Struct, frozen=True):
    """What went: files that nobody owned, segments that nothing reached, and bytes of agents."""

    num_strays: int
    num_collected: int
    num_evicted: int
    freed_bytes: int
    num_bytes: int
    quota_bytes: int


def sweep(
    index: Index, vault: Vault, disk_bytes: int, keep_branches_s: float, *, dry: bool = False
) -> Swept:
    """Clear what quota and time allow to go; ``dry`` only says what would. Blocking."""
    planned = plan(index.rows(), frozenset(), vault, disk_bytes, keep_branches_s)
    going = planned.clearance
    before = planned.count.census.num_bytes
    freed = _promised(planned) if dry else _cleared(index, vault, planned)
    return Swept(
        len(going.strays),
        len(going.collected),
        len(going.evicted),
        freed,
        before - freed,
        planned.quota,
    )


def _cleared(index: Index, vault: Vault, planned: Plan) -> int:
    going = planned.clearance
    index.unstore((*planned.count.missing, *going.evicted))
    gone = index.collect(going.collected)
    index.scrub()
    return vault.sweep(going.strays) + vault.purge((*gone, *going.evicted))


def _promised(planned: Plan) -> int:
    going = {*planned.clearance.collected, *planned.clearance.evicted}
    strays = {*planned.clearance.strays}
    census = planned.count.census
    segments = sum(each.num_bytes for each in census.segments if each.id in going)
    return segments + sum(each.num_bytes for each in census.strays if each.path in strays)
