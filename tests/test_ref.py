import asyncio
import threading
from typing import Any

import pytest

from greenroom.runtime.actor import Actor
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import (
    ActorFailed,
    ActorStopped,
    AskTimeout,
    ChannelCancelled,
    InvalidRequest,
    MailboxFull,
)
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.message import Message, Request
from greenroom.runtime.ref import Ref
from greenroom.runtime.system import System
from greenroom.runtime.testkit import expect_dead_letters, run, settle
from tests.troupe import BoomError, Crash, Note, Notes, Order, Play, Stream, Work, Worker

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_messages_of_one_sender_arrive_in_order(seed: int) -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker, mailbox=MailboxSpec(capacity=1000))

            async def sender(base: int) -> None:
                for n in range(base, base + 50):
                    ref.tell(Note(n))
                    await asyncio.sleep(0)

            await asyncio.gather(*(sender(base) for base in (0, 100, 200)))
            notes = await ref.ask(Notes())
            assert len(notes) == 150
            for base in (0, 100, 200):
                mine = [n for n in notes if base <= n < base + 50]
                assert mine == list(range(base, base + 50))

    run(main, seed=seed)


def test_one_message_at_a_time() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace))
            work = asyncio.create_task(ref.ask(Work("long", 5.0)))
            await asyncio.sleep(1.0)
            ref.tell(Note(1))
            await work
            await ref.ask(Notes())
            assert trace == ["start", "long done", 1]

    run(main)


def test_a_full_mailbox_refuses_with_a_typed_error() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker, mailbox=MailboxSpec(capacity=2))
            ref.tell(Note(0))
            ref.tell(Note(1))
            with pytest.raises(MailboxFull) as full:
                ref.tell(Note(2))
            assert (full.value.actor, full.value.capacity) == ("a", 2)
            with pytest.raises(MailboxFull):
                await ref.ask(Notes())
            await settle()
            assert await ref.ask(Notes()) == [0, 1]

    run(main)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_wait_policy_lets_senders_wait_in_line(seed: int) -> None:
    async def main() -> None:
        async with System() as system:
            spec = MailboxSpec(capacity=1, when_full="wait")
            ref = system.spawn("a", Worker, mailbox=spec)
            ref.tell(Note(0))
            with pytest.raises(MailboxFull):
                ref.tell(Note(99))  # tell cannot wait
            waiting = asyncio.create_task(ref.send(Note(1)))
            await asyncio.sleep(0)
            assert await ref.ask(Notes()) in ([0, 1], [0])
            await waiting
            assert await ref.ask(Notes()) == [0, 1]

    run(main, seed=seed)


def test_a_cancelled_send_is_not_sent() -> None:
    async def main() -> None:
        async with System() as system:
            spec = MailboxSpec(capacity=1, when_full="wait")
            ref = system.spawn("a", Worker, mailbox=spec)
            busy = asyncio.create_task(ref.ask(Work("busy", 5.0)))
            await asyncio.sleep(1.0)
            ref.tell(Note(0))
            sending = asyncio.create_task(ref.send(Note(1)))
            await asyncio.sleep(1.0)
            sending.cancel()
            await busy
            assert await ref.ask(Notes()) == [0]

    run(main)


def test_a_timeout_withdraws_a_queued_request() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace))
            first = asyncio.create_task(ref.ask(Work("first", 10.0)))
            await asyncio.sleep(1.0)
            with pytest.raises(AskTimeout) as late:
                await ref.ask(Work("second"), timeout=2.0)
            assert (late.value.actor, late.value.timeout_s) == ("a", 2.0)
            assert await first == "first"
            await ref.ask(Notes())
            assert trace == ["start", "first done"]

    run(main)


def test_a_timeout_cancels_the_running_handler_and_the_actor_goes_on() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace))
            ref.tell(Note(1))
            with pytest.raises(AskTimeout):
                await ref.ask(Work("work", 60.0), timeout=2.0)
            assert asyncio.get_running_loop().time() < 3.0
            assert await ref.ask(Notes()) == [1]  # the same generation
            assert trace == ["start", 1, "work cancelled"]
            info = system.inspect().actors[0]
            assert (info.generation, info.restarts, info.cancelled) == (1, 0, 1)
            assert await ref.ask(Work("again", 1.0), timeout=2.0) == "again"

    run(main)


@pytest.mark.parametrize("timeout", [None, 100.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_cancelled_ask_cancels_the_work_through_a_chain_of_actors(
    seed: int, timeout: float | None
) -> None:
    class Middle(Worker):
        def __init__(self, back: Ref[Order]) -> None:
            super().__init__()
            self.back = back

        async def work(self, label: str, seconds: float) -> str:
            return await self.back.ask(Work(label, seconds))

    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            back = system.spawn("back", lambda: Worker(trace))
            front = system.spawn("front", lambda: Middle(back))
            asking = asyncio.create_task(front.ask(Work("deep", 60.0), timeout))
            await asyncio.sleep(1.0)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            await settle()
            assert trace == ["start", "deep cancelled"]
            assert await front.ask(Notes()) == []

    run(main, seed=seed)


@pytest.mark.parametrize("queued", [False, True])
def test_a_reader_that_leaves_cancels_the_handler_or_withdraws_the_message(queued: bool) -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace))
            busy = asyncio.create_task(ref.ask(Work("busy", 5.0))) if queued else None
            await asyncio.sleep(1.0)
            channel: Channel[int] = Channel(4)
            ref.tell(Stream(channel))
            async with channel:
                if not queued:
                    async for n in channel:
                        if n == 2:
                            break
            if busy is not None:
                await busy
            assert await ref.ask(Notes()) == []
            expected = ["start", "busy done"] if queued else ["start", "stream cancelled after 3"]
            assert trace == expected

    run(main)


@pytest.mark.parametrize("queued", [False, True])
def test_a_reader_that_leaves_cancels_what_the_actor_sent_itself(queued: bool) -> None:
    class Resender(Worker):
        async def handle(self, message: Order) -> object:
            if isinstance(message, Play):
                self.context.post(Stream(message.reply))
                return None
            return await super().handle(message)

    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Resender(trace))
            channel: Channel[int] = Channel(4)
            ref.tell(Play(channel))
            if queued:
                ref.tell(Work("busy", 5.0))
            await asyncio.sleep(1.5)
            channel.cancel()
            assert await ref.ask(Notes()) == []
            assert trace[1:] == (["busy done"] if queued else ["stream cancelled after 2"])

    run(main)


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_a_handler_that_cancels_itself_cancels_nothing_else(seconds: float) -> None:
    class Contrary(Worker):
        async def stream(self, reply: Channel[int]) -> None:
            reply.cancel()
            if seconds:
                await self.work("stream", seconds)

    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Contrary(trace))
            ref.tell(Stream(Channel()))
            assert await ref.ask(Work("next", 1.0)) == "next"
            assert trace == ["start", *(["stream cancelled"] if seconds else []), "next done"]

    run(main)


@pytest.mark.parametrize("queued", [False, True])
def test_when_the_reader_leaves_an_asker_who_is_somebody_else_hears_of_it(queued: bool) -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            if queued:
                ref.tell(Work("busy", 5.0))
            channel: Channel[int] = Channel()
            asking = asyncio.create_task(ref.ask(Play(channel)))
            await asyncio.sleep(1.5)
            channel.cancel()
            with pytest.raises(ChannelCancelled):
                await asking
            assert await ref.ask(Notes()) == []

    run(main)


def test_when_the_reader_leaves_a_sender_in_line_hears_of_it() -> None:
    async def main() -> None:
        async with System() as system:
            spec = MailboxSpec(capacity=1, when_full="wait")
            ref = system.spawn("a", Worker, mailbox=spec)
            ref.tell(Work("busy", 5.0))
            await asyncio.sleep(1.0)
            ref.tell(Note(1))
            channel: Channel[int] = Channel()
            sending = asyncio.create_task(ref.send(Stream(channel)))
            await asyncio.sleep(1.0)
            channel.cancel()
            with pytest.raises(ChannelCancelled):
                await sending
            assert await ref.ask(Notes()) == [1]

    run(main)


def test_an_error_reaches_the_asker_typed_or_wrapped() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            ref.tell(Note(1))
            with pytest.raises(InvalidRequest) as refused:
                await ref.ask(Crash(refuse=True))
            assert refused.value.param == "refuse"
            assert await ref.ask(Notes()) == [1]  # not a crash
            with pytest.raises(ActorFailed) as failed:
                await ref.ask(Crash())
            assert (failed.value.actor, failed.value.error) == ("a", "BoomError")
            assert isinstance(failed.value.__cause__, BoomError)

    run(main)


def test_a_stopped_actor_refuses_and_counts() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            await system.stop(ref)
            with expect_dead_letters(system, Note, Notes, Note):
                with pytest.raises(ActorStopped):
                    ref.tell(Note(1))
                with pytest.raises(ActorStopped):
                    await ref.ask(Notes())
                ref.tell_threadsafe(Note(2))
                await settle()

    run(main)


def test_asking_oneself_is_refused_rather_than_waited_for() -> None:
    class Narcissus(Worker):
        async def handle(self, message: Any) -> object:
            if isinstance(message, Work):
                return await self.context.self_ref.ask(Notes())
            return await super().handle(message)

    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Narcissus)
            with pytest.raises(ActorFailed) as failed:
                await ref.ask(Work("self"))
            assert isinstance(failed.value.__cause__, RuntimeError)

    run(main)


def test_threads_can_tell_in_order() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker, mailbox=MailboxSpec(capacity=10_000))

            def work(base: int) -> None:
                for n in range(base, base + 200):
                    ref.tell_threadsafe(Note(n))

            threads = [threading.Thread(target=work, args=(base,)) for base in (0, 1000)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            notes = await ref.ask(Notes())
            assert [n for n in notes if n < 1000] == list(range(200))
            assert [n for n in notes if n >= 1000] == list(range(1000, 1200))

    asyncio.run(main())


def test_refs_are_equal_when_they_name_the_same_actor() -> None:
    async def main() -> None:
        async with System() as system:
            ref, other = system.spawn("a", Worker), system.spawn("b", Worker)
            assert ref == system.get("a")
            assert len({ref, system.get("a"), other}) == 2
            await system.stop(ref)
            assert system.spawn("a", Worker) != ref

    run(main)


class Promise(Request[str], frozen=True):
    """To be answered later."""

    name: str


class Settle(Message, frozen=True):
    """Answer what was asked under a name; with an error, if there is one."""

    name: str
    error: str | None = None


class Clerk(Actor[Promise | Settle]):
    """Answers when it is told to, and has gone on meanwhile."""

    def __init__(self, promised: dict[str, "asyncio.Future[str]"]) -> None:
        self._promised = promised

    async def handle(self, message: Promise | Settle) -> object:
        match message:
            case Promise(name):
                return self._promised.setdefault(name, asyncio.get_running_loop().create_future())
            case Settle(name, "boom"):
                self._promised[name].cancel()
                raise BoomError(name)
            case Settle(name, error):
                answer = self._promised[name]
                if error is None:
                    answer.set_result(f"{name} at last")
                else:
                    answer.set_exception(InvalidRequest(error))
        return None


@pytest.mark.parametrize("seed", SEEDS)
def test_an_answer_may_come_later(seed: int) -> None:
    async def main() -> None:
        promised: dict[str, asyncio.Future[str]] = {}
        async with System() as system:
            ref = system.spawn("clerk", lambda: Clerk(promised))
            first = asyncio.create_task(ref.ask(Promise("first")))
            second = asyncio.create_task(ref.ask(Promise("second")))
            both = asyncio.create_task(ref.ask(Promise("second")))
            refused = asyncio.create_task(ref.ask(Promise("refused")))
            await settle()
            with pytest.raises(AskTimeout):
                await ref.ask(Promise("first"), timeout=1.0)
            assert not promised["first"].cancelled(), "somebody else waits for the same"
            ref.tell(Settle("second"))
            assert await second == await both == "second at last"
            assert not first.done()
            ref.tell(Settle("refused", "no"))
            with pytest.raises(InvalidRequest, match="no"):
                await refused
            ref.tell(Settle("first"))
            assert await first == "first at last"

    run(main, seed=seed)


def test_an_answer_that_its_actor_gives_up_is_a_failure() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("clerk", lambda: Clerk({}))
            asked = asyncio.create_task(ref.ask(Promise("lost")))
            await settle()
            with expect_dead_letters(system, Settle):
                ref.tell(Settle("lost", "boom"))
                with pytest.raises(ActorFailed, match="BoomError"):
                    await asked

    run(main)
