"""Agents without await: from a thread, from inside a running loop, and with Ctrl-C."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import pytest

from greenroom.actors.loop_thread import LoopThread
from greenroom.actors.room import Room
from greenroom.actors.sync import SyncRoom, in_step
from greenroom.runtime.errors import Conflict, Unavailable
from greenroom.runtime.system import System
from tests.house import DONE, WORDS, SmallHouse, talk
from tests.server import ROOT


@contextmanager
def a_room(house: SmallHouse) -> Iterator[SyncRoom]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Room]:
        async with System() as actors:
            yield Room(house, actors)

    with in_step(opened) as room:
        yield room


def test_say_and_stream() -> None:
    with a_room(SmallHouse()) as room:
        alice = room.agent("alice")
        assert alice.say("Hello").text == DONE.text
        answer = alice.stream("Hello")
        assert list(answer) == [word for word in WORDS if word]
        assert answer.reply.head == DONE.head
        assert [info.name for info in room.agents()] == ["alice"]
        alice.hear("It rains.", name="bob")
        assert alice.heard().num_pending == 0


INSIDE = """
import asyncio
from tests.test_sync import SmallHouse, a_room

async def cell():
    with a_room(SmallHouse()) as room:
        return room.agent("alice").say("Hello").text

print(asyncio.run(cell()))
"""


def test_inside_of_a_running_loop() -> None:
    """As in a notebook's cell. In a process of its own: it blocks that loop, as it is meant to."""
    done = subprocess.run(
        [sys.executable, "-c", INSIDE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == DONE.text, done.stderr


def test_leaving_the_loop_cancels_the_turn() -> None:
    house = SmallHouse(talk)
    with a_room(house) as room:
        for _ in room.agent("alice").stream("Hello"):
            break
        assert house.left.is_set()


def test_errors_come_through() -> None:
    house = SmallHouse()
    house.refusal = Unavailable("not now")
    with a_room(house) as room, pytest.raises(Unavailable, match="not now"):
        room.agent("alice").say("Hello")


def test_a_room_that_does_not_open_raises_what_prevents_it() -> None:
    @asynccontextmanager
    async def refusing() -> AsyncIterator[Room]:
        raise Conflict("closed today")
        yield

    with pytest.raises(Conflict, match="closed today"), in_step(refusing):
        pass
    assert not [t for t in threading.enumerate() if t.name == "greenroom-loop"]


WAITING = """
import asyncio, signal
from greenroom.actors.loop_thread import LoopThread

async def long():
    print("waiting", flush=True)
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise

signal.signal(signal.SIGINT, signal.default_int_handler)
with LoopThread() as loop:
    try:
        loop.run(long())
    except KeyboardInterrupt:
        loop.run(asyncio.sleep(0.1))  # and the loop goes on
        print("interrupted")
"""


def test_an_interrupt_before_the_wait_leaves_nothing_running() -> None:
    """It comes when the work has been handed over, and nobody waits for it yet."""

    def interrupt(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code is not asyncio.run_coroutine_threadsafe.__code__:
            return None
        if event == "return":
            sys.settrace(before)
            raise KeyboardInterrupt
        return interrupt

    async def left() -> int:
        await asyncio.sleep(0)
        return len(asyncio.all_tasks()) - 1

    with LoopThread() as loop:
        before = sys.gettrace()
        sys.settrace(interrupt)
        with pytest.raises(KeyboardInterrupt):
            loop.run(asyncio.sleep(100))
        assert loop.run(left()) == 0


def test_ctrl_c_cancels_what_is_waited_for() -> None:
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "waiting\n"
        script.send_signal(signal.SIGINT)
        assert script.stdout.read().split() == ["cancelled", "interrupted"]
