import asyncio
from typing import Any

import pytest

from greenroom.runtime.actor import Actor
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import ActorFailed, ActorStopped, AskTimeout
from greenroom.runtime.message import Terminated
from greenroom.runtime.supervise import Backoff, Decision, Supervision
from greenroom.runtime.system import System
from greenroom.runtime.testkit import Probe, expect_dead_letters, run, settle
from tests.troupe import BoomError, Crash, Note, Notes, Order, Stream, Work, Worker

SEEDS = range(5)
NO_DELAY = Backoff(initial_s=0.0)


def always(decision: Decision, **more: Any) -> Supervision:
    return Supervision(decider=lambda error: decision, backoff=NO_DELAY, **more)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_restart_keeps_ref_and_mailbox_and_does_not_replay(seed: int) -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace))
            ref.tell(Note(1))
            with expect_dead_letters(system, Crash):
                crash = asyncio.create_task(ref.ask(Crash(seconds=1.0)))
                await asyncio.sleep(0.5)
                ref.tell(Note(2))
                ref.tell(Note(3))
                with pytest.raises(ActorFailed):
                    await crash
                assert await ref.ask(Notes()) == [2, 3]
            assert trace == ["start", 1, "given up: BoomError", "start", 2, 3]
            info = system.inspect().actors[0]
            assert (info.generation, info.restarts, info.last_error) == (2, 1, "BoomError")

    run(main, seed=seed)


def test_backoff_waits_between_restarts_and_starts_over_after_a_quiet_while() -> None:
    backoff = Backoff(initial_s=1.0, factor=2.0, jitter=0.0, reset_after_s=100.0)

    async def main() -> None:
        async with System() as system:
            policy = Supervision(backoff=backoff, max_restarts=10)
            ref = system.spawn("a", Worker, supervision=policy)
            loop = asyncio.get_running_loop()
            waits = []
            for pause in (0.0, 0.0, 0.0, 200.0):
                await asyncio.sleep(pause)
                with pytest.raises(ActorFailed):
                    await ref.ask(Crash())
                began = loop.time()
                assert system.inspect().actors[0].state == "suspended"
                await ref.ask(Notes())
                waits.append(round(loop.time() - began, 3))
            assert waits == [1.0, 2.0, 4.0, 1.0]

    run(main)


def test_too_many_restarts_in_a_window_stop_the_actor() -> None:
    async def main() -> None:
        policy = Supervision(max_restarts=2, window_s=10.0, backoff=NO_DELAY)
        async with System() as system:
            ref = system.spawn("a", Worker, supervision=policy)
            probe = Probe[Any](system)
            probe.watch(ref)
            for _ in range(2):
                with pytest.raises(ActorFailed):
                    await ref.ask(Crash())
            await asyncio.sleep(11.0)  # a new window
            for _ in range(2):
                with pytest.raises(ActorFailed):
                    await ref.ask(Crash())
            assert await ref.ask(Notes()) == []
            crash = asyncio.create_task(ref.ask(Crash(seconds=1.0)))
            await asyncio.sleep(0.5)
            after = asyncio.create_task(ref.ask(Notes()))
            with pytest.raises(ActorFailed):
                await crash
            with pytest.raises(ActorStopped):
                await after
            assert await probe.expect(Terminated) == Terminated(ref, "failed")

    run(main)


def test_resume_keeps_the_instance() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker, supervision=always(Decision.RESUME))
            ref.tell(Note(1))
            with expect_dead_letters(system, Crash):
                ref.tell(Crash())  # nobody hears of this one
                with pytest.raises(ActorFailed):
                    await ref.ask(Crash())  # the asker hears of this one
            assert await ref.ask(Notes()) == [1]

    run(main)


def test_stop_ends_the_actor_and_drops_its_mailbox() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            policy = always(Decision.STOP)
            ref = system.spawn("a", lambda: Worker(trace), supervision=policy)
            with expect_dead_letters(system, Crash, Note):
                ref.tell(Crash())
                ref.tell(Note(1))
                await ref.cell.ended()
            assert trace == ["start", "given up: BoomError"]
            assert system.get("a") is None

    run(main)


class Parent(Worker):
    """Spawns two workers under one policy."""

    def __init__(self, trace: list[Any], policy: Supervision) -> None:
        super().__init__([])
        self.shared, self.policy = trace, policy

    async def on_start(self) -> None:
        for name in ("left", "right"):
            ref = self.context.spawn(name, lambda: Worker(self.shared), supervision=self.policy)
            self.context.watch(ref)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scope", ["one", "all"])
def test_one_for_one_and_all_for_one(scope: Any, seed: int) -> None:
    async def main() -> None:
        async with System() as system:
            policy = Supervision(scope=scope, backoff=NO_DELAY)
            parent = system.spawn("parent", lambda: Parent([], policy))
            await parent.ask(Notes())
            left, right = system.get("parent/left"), system.get("parent/right")
            assert left is not None
            assert right is not None
            left.tell(Note(1))
            right.tell(Note(2))
            busy = asyncio.create_task(right.ask(Work("busy", 5.0)))
            await asyncio.sleep(1.0)
            right.tell(Note(3))
            with pytest.raises(ActorFailed):
                await left.ask(Crash())
            if scope == "all":
                with pytest.raises(ActorFailed):
                    await busy
                assert await right.ask(Notes()) == [3]
            else:
                assert await busy == "busy"
                assert await right.ask(Notes()) == [2, 3]
            assert await left.ask(Notes()) == []

    run(main, seed=seed)


def test_all_for_one_can_stop_the_whole_group() -> None:
    async def main() -> None:
        async with System() as system:
            policy = always(Decision.STOP, scope="all")
            refs = [system.spawn(name, Worker, supervision=policy) for name in "abc"]
            other = system.spawn("other", Worker, supervision=always(Decision.STOP))
            busy = asyncio.create_task(refs[1].ask(Work("busy", 5.0)))
            await asyncio.sleep(1.0)
            with pytest.raises(ActorFailed):
                await refs[0].ask(Crash())
            with pytest.raises(ActorFailed):
                await busy
            assert [info.path for info in system.inspect().actors] == ["other"]
            assert await other.ask(Notes()) == []

    run(main)


@pytest.mark.parametrize("seed", SEEDS)
def test_escalation_fails_the_parent_whose_restart_brings_new_children(seed: int) -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            parent = system.spawn(
                "parent",
                lambda: Parent(trace, always(Decision.ESCALATE)),
                supervision=always(Decision.RESTART),
            )
            await parent.ask(Notes())
            left = system.get("parent/left")
            assert left is not None
            with pytest.raises(ActorFailed):
                await left.ask(Crash())
            await parent.ask(Notes())
            fresh = system.get("parent/left")
            assert fresh is not None
            assert fresh != left
            assert await fresh.ask(Notes()) == []
            with pytest.raises(ActorStopped):
                left.tell(Note(1))
            assert trace.count("start") == 4
            infos = {info.path: info.generation for info in system.inspect().actors}
            assert infos == {"parent": 2, "parent/left": 1, "parent/right": 1}

    run(main, seed=seed)


def test_a_top_level_escalation_is_the_applications_matter() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker, supervision=always(Decision.ESCALATE))
            ref.tell(Crash())
            assert isinstance(await system.failure, BoomError)
            assert system.get("a") is None

    run(main)


def test_a_failing_start_is_a_crash_and_messages_wait_for_the_first_good_one() -> None:
    attempts: list[int] = []

    class Stubborn(Worker):
        async def on_start(self) -> None:
            attempts.append(1)
            if len(attempts) < 3:
                raise BoomError

    def factory() -> Actor[Order]:
        if len(attempts) == 1:
            attempts.append(1)
            raise BoomError
        return Stubborn()

    async def main() -> None:
        async with System() as system:
            # A refusal to start cannot be resumed: there is no instance to go on with.
            ref = system.spawn("a", factory, supervision=always(Decision.RESUME))
            ref.tell(Note(1))
            assert await ref.ask(Notes()) == [1]
            assert len(attempts) == 3
            assert system.inspect().actors[0].restarts == 2

    run(main)


def test_a_reply_channel_gets_the_crash_and_so_does_the_running_asker() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            channel: Channel[int] = Channel()
            ref.tell(Stream(channel))
            await asyncio.sleep(1.5)
            context = ref.cell.context
            assert context is not None
            context.fail(BoomError())
            assert [await anext(channel), await anext(channel)] == [0, 1]
            with pytest.raises(ActorFailed):
                await anext(channel)
            assert await ref.ask(Notes()) == []
            assert system.inspect().actors[0].generation == 2

    run(main)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("busy", [False, True])
def test_a_thread_can_fail_its_own_generation_only(busy: bool, seed: int) -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace))
            await ref.ask(Notes())
            context = ref.cell.context
            assert context is not None
            asking = asyncio.create_task(ref.ask(Work("work", 5.0))) if busy else None
            await asyncio.sleep(1.0)
            context.fail(BoomError())
            if asking is not None:
                with pytest.raises(ActorFailed):
                    await asking
            await asyncio.sleep(1.0)
            assert system.inspect().actors[0].generation == 2
            context.fail(BoomError())  # a straggler of generation 1
            with expect_dead_letters(system, Note):
                context.post(Note(7))
                await settle()
            assert await ref.ask(Notes()) == []
            assert system.inspect().actors[0].generation == 2
            assert trace.count("given up: BoomError") == 1

    run(main, seed=seed)


def test_a_crash_in_the_cleanup_after_a_cancellation_counts() -> None:
    class Clumsy(Worker):
        async def work(self, label: str, seconds: float) -> str:
            try:
                await asyncio.sleep(seconds)
            finally:
                raise BoomError

    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Clumsy)
            with pytest.raises(AskTimeout):
                await ref.ask(Work("work", 5.0), timeout=1.0)
            await ref.ask(Notes())
            info = system.inspect().actors[0]
            assert (info.restarts, info.last_error) == (1, "BoomError")

    run(main)


def test_a_cancellation_from_within_is_a_crash_not_the_end() -> None:
    class Confused(Worker):
        async def work(self, label: str, seconds: float) -> str:
            await asyncio.sleep(seconds)
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
            return label

    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Confused)
            with pytest.raises(AskTimeout):  # the kernel's own cancellation leaves no trace
                await ref.ask(Work("late", 5.0), timeout=1.0)
            with pytest.raises(ActorFailed):
                await ref.ask(Work("work"))
            assert await ref.ask(Notes()) == []
            assert system.inspect().actors[0].generation == 2

    run(main)


def test_a_handler_that_swallows_its_cancellation_still_ends() -> None:
    class Deaf(Worker):
        async def work(self, label: str, seconds: float) -> str:
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.trace.append("deaf")
            async with asyncio.timeout(1.0):
                await asyncio.sleep(0.5)
            return label

    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Deaf(trace))
            with pytest.raises(AskTimeout):
                await ref.ask(Work("one", 5.0), timeout=1.0)
            assert await ref.ask(Work("two", 0.1)) == "two"
            asking = asyncio.create_task(ref.ask(Work("three", 5.0)))
            await asyncio.sleep(1.0)
            await system.kill(ref)
            assert await asyncio.wait_for(asking, 1.0) == "three"
            assert trace == ["start", "deaf", "deaf", "given up: ActorStopped"]

    run(main)
