import asyncio

from greenroom.runtime.activation import QUOTA
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.system import System
from greenroom.runtime.testkit import run
from tests.troupe import Note, Notes, Worker


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
            spec = MailboxSpec(capacity=100 * QUOTA)
            loud = system.spawn("loud", lambda: Worker(flooded), mailbox=spec)
            quiet = system.spawn("quiet", Worker)
            await loud.ask(Notes())
            await quiet.ask(Notes())
            flooded.clear()
            for n in range(100 * QUOTA):
                loud.tell(Note(n))
            await quiet.ask(Notes())
            assert 0 < len(flooded) <= 4 * QUOTA

    run(main)
