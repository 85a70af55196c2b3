import asyncio
from itertools import pairwise

from greenroom.runtime.activation import MAX_BURST
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.ref import Ref
from greenroom.runtime.system import System
from greenroom.runtime.testkit import run
from tests.troupe import Note, Notes, Order, Worker


def test_an_idle_actor_has_no_task() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            await ref.ask(Notes())
            await asyncio.sleep(1.0)
            assert ref.cell.task is None
            assert len(asyncio.all_tasks()) == 1

    run(main)


def test_a_flooded_actor_lets_its_neighbours_act() -> None:
    async def main() -> None:
        async with System() as system:
            flooded: list[object] = []
            loud = await flood(system, flooded)
            quiet = system.spawn("quiet", Worker)
            await quiet.ask(Notes())
            before = len(flooded)
            await quiet.ask(Notes())
            assert 0 < len(flooded) - before <= 3  # one message for every round of the loop
            assert loud.cell.mailbox

    run(main)


def test_a_flooded_actor_alone_works_in_bursts() -> None:
    async def main() -> None:
        async with System() as system:
            flooded: list[object] = []
            await flood(system, flooded)
            seen = []
            for _ in range(8):
                await asyncio.sleep(0)
                seen.append(len(flooded))
            bursts = [after - before for before, after in pairwise(seen)]
            assert bursts == sorted(bursts)
            assert bursts[-1] == MAX_BURST

    run(main)


async def flood(system: System, flooded: list[object]) -> Ref[Order]:
    """An actor with hundreds of messages before it, which it puts into ``flooded``."""
    loud = system.spawn("loud", lambda: Worker(flooded), mailbox=MailboxSpec(capacity=500))
    await loud.ask(Notes())
    flooded.clear()
    for n in range(500):
        loud.tell(Note(n))
    return loud
