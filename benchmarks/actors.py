"""The actor kernel against what people would use instead: xoscar, Pykka, a bare asyncio.Queue task.

    make bench NAME=actors [ARGS=--json]

Prints, for each contender, medians over ``--repeats`` rounds that take turns: cost of a spawn,
of a tell (sent and handled), of an ask (p50 and p99), bytes per idle actor, one hop of a ring of
10,000 actors; then how much a flooded neighbour costs greenroom's own ask. Everyone handles the
same two messages: count (tell) and count-and-return (ask). All but Pykka (threads) run on uvloop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import uvloop

from benchmarks.figures import Figure, add_outputs, figure, quantile, write_json
from greenroom.runtime.actor import Actor
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.message import Message, Request
from greenroom.runtime.ref import Ref
from greenroom.runtime.system import System

BURST = 100  # tells before the sender lets others run: what a mailbox is for


class Count(Message, frozen=True):
    n: int


class CountAndReturn(Request[int], frozen=True):
    n: int


class Pass(Message, frozen=True):
    hops: int


class Contender(Protocol):
    """One library. ``spawn`` gives a handle; the rest acts on it."""

    async def spawn(self) -> Any: ...
    async def tell(self, handle: Any, n: int) -> None: ...
    async def ask(self, handle: Any, n: int) -> int: ...
    async def ring(self, num_actors: int, hops: int) -> None: ...


class Counter(Actor[Count | CountAndReturn | Pass]):
    def __init__(self, next_ref: Ref[Pass] | None = None, done: Callable[[], object] = int) -> None:
        self.total, self.next, self.done = 0, next_ref, done

    async def handle(self, message: Count | CountAndReturn | Pass) -> object:
        match message:
            case Count(n) | CountAndReturn(n):
                self.total += n
            case Pass(hops):
                if hops == 0 or self.next is None:
                    self.done()
                else:
                    self.next.tell(Pass(hops - 1))
        return self.total


class Greenroom:
    def __init__(self, system: System) -> None:
        self.system, self.num = system, 0

    @staticmethod
    @contextlib.asynccontextmanager
    async def open() -> AsyncIterator[Contender]:
        async with System() as system:
            yield Greenroom(system)

    async def spawn(self, factory: Callable[[], Counter] = Counter) -> Ref[Any]:
        self.num += 1
        return self.system.spawn(f"counter-{self.num}", factory, mailbox=MailboxSpec(1024))

    async def tell(self, handle: Any, n: int) -> None:
        for sent in range(0, n, BURST):
            for _ in range(min(BURST, n - sent)):
                handle.tell(Count(1))
            await handle.ask(CountAndReturn(0))

    async def ask(self, handle: Any, n: int) -> int:
        return int(await handle.ask(CountAndReturn(n)))

    async def ring(self, num_actors: int, hops: int) -> None:
        finished = asyncio.Event()
        previous = await self.spawn(partial(Counter, None, finished.set))
        for _ in range(num_actors - 1):
            previous = await self.spawn(partial(Counter, previous, finished.set))
        await previous.ask(CountAndReturn(0))
        previous.tell(Pass(min(hops, num_actors - 1)))
        await finished.wait()


class BareQueue:
    """What one writes without a library: no supervision, no bound on anything, no cancellation."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    @staticmethod
    @contextlib.asynccontextmanager
    async def open() -> AsyncIterator[Contender]:
        bare = BareQueue()
        try:
            yield bare
        finally:
            for task in bare.tasks:
                task.cancel()
            await asyncio.gather(*bare.tasks, return_exceptions=True)

    async def spawn(self, counter: Counter | None = None) -> asyncio.Queue[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue(1024)
        self.tasks.append(asyncio.create_task(self.work(queue, counter or Counter())))
        return queue

    @staticmethod
    async def work(queue: asyncio.Queue[Any], counter: Counter) -> None:
        while True:
            message, reply = await queue.get()
            answer = await counter.handle(message)
            if reply is not None:
                reply.set_result(answer)

    async def tell(self, handle: Any, n: int) -> None:
        for sent in range(0, n, BURST):
            for _ in range(min(BURST, n - sent)):
                handle.put_nowait((Count(1), None))
            await self.ask(handle, 0)

    async def ask(self, handle: Any, n: int) -> int:
        reply = asyncio.get_running_loop().create_future()
        handle.put_nowait((CountAndReturn(n), reply))
        return int(await reply)

    async def ring(self, num_actors: int, hops: int) -> None:
        finished = asyncio.Event()

        class Neighbour:
            def __init__(self, queue: asyncio.Queue[Any]) -> None:
                self.queue = queue

            def tell(self, message: Pass) -> None:
                self.queue.put_nowait((message, None))

        previous = await self.spawn(Counter(None, finished.set))
        for _ in range(num_actors - 1):
            link: Any = Neighbour(previous)
            previous = await self.spawn(Counter(link, finished.set))
        await asyncio.sleep(0)
        previous.put_nowait((Pass(min(hops, num_actors - 1)), None))
        await finished.wait()


class Xoscar:
    def __init__(self, xo: Any, address: str) -> None:
        self.xo, self.address, self.num = xo, address, 0

        class XoCounter(xo.Actor):  # type: ignore[misc]
            def __init__(self, next_ref: Any = None, done: Any = None) -> None:
                self.total, self.next, self.done = 0, next_ref, done

            async def count(self, n: int) -> int:
                self.total += n
                return self.total

            async def hop(self, hops: int) -> None:
                if hops == 0 or self.next is None:
                    self.done()
                else:
                    await self.next.hop.tell(hops - 1)

        self.kind = XoCounter

    @staticmethod
    @contextlib.asynccontextmanager
    async def open() -> AsyncIterator[Contender]:
        xo = importlib.import_module("xoscar")
        pool = await xo.create_actor_pool("127.0.0.1", n_process=0)
        async with pool:
            yield Xoscar(xo, pool.external_address)

    async def spawn(self, *args: Any) -> Any:
        self.num += 1
        return await self.xo.create_actor(
            self.kind, *args, address=self.address, uid=f"counter-{self.num}"
        )

    async def tell(self, handle: Any, n: int) -> None:
        for sent in range(0, n, BURST):
            for _ in range(min(BURST, n - sent)):
                await handle.count.tell(1)
            await handle.count(0)

    async def ask(self, handle: Any, n: int) -> int:
        return int(await handle.count(n))

    async def ring(self, num_actors: int, hops: int) -> None:
        finished = asyncio.Event()
        previous = await self.spawn(None, finished.set)
        for _ in range(num_actors - 1):
            previous = await self.spawn(previous, finished.set)
        await previous.hop.tell(min(hops, num_actors - 1))
        await finished.wait()


class Pykka:
    """A thread per actor: blocking calls, timed as its users make them."""

    def __init__(self, pykka: Any) -> None:
        class PykkaCounter(pykka.ThreadingActor):  # type: ignore[misc]
            def __init__(self, next_ref: Any = None, done: Any = None) -> None:
                super().__init__()
                self.total, self.next, self.done = 0, next_ref, done

            def on_receive(self, message: Any) -> int:
                if isinstance(message, Pass):
                    if message.hops == 0 or self.next is None:
                        self.done()
                    else:
                        self.next.tell(Pass(message.hops - 1))
                else:
                    self.total += message.n
                return self.total

        self.kind = PykkaCounter

    @staticmethod
    @contextlib.asynccontextmanager
    async def open() -> AsyncIterator[Contender]:
        pykka = importlib.import_module("pykka")
        try:
            yield Pykka(pykka)
        finally:
            pykka.ActorRegistry.stop_all()

    async def spawn(self, *args: Any) -> Any:
        return self.kind.start(*args)

    async def tell(self, handle: Any, n: int) -> None:
        for sent in range(0, n, BURST):
            for _ in range(min(BURST, n - sent)):
                handle.tell(Count(1))
            handle.ask(CountAndReturn(0))

    async def ask(self, handle: Any, n: int) -> int:
        return int(handle.ask(CountAndReturn(n)))

    async def ring(self, num_actors: int, hops: int) -> None:
        finished = asyncio.Event()
        loop = asyncio.get_running_loop()

        def done() -> None:
            loop.call_soon_threadsafe(finished.set)

        previous = await self.spawn(None, done)
        for _ in range(num_actors - 1):
            previous = await self.spawn(previous, done)
        previous.tell(Pass(min(hops, num_actors - 1)))
        await finished.wait()


CONTENDERS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Contender]]] = {
    "queue": BareQueue.open,
    "greenroom": Greenroom.open,
    "xoscar": Xoscar.open,
    "pykka": Pykka.open,
}
# Ten thousand threads are not what Pykka is for.
NUM_ACTORS = {"pykka": 500}


async def per_call_us(work: Callable[[], Awaitable[object]], num: int) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) / num * 1e6


async def round_of(contender: Contender, scale: int) -> dict[str, float]:
    """One round: microseconds each."""
    handle = await contender.spawn()
    await contender.ask(handle, 0)
    asks = []
    for _ in range(scale):
        began = time.perf_counter()
        await contender.ask(handle, 1)
        asks.append((time.perf_counter() - began) * 1e6)
    asks.sort()
    return {
        "tell": await per_call_us(lambda: contender.tell(handle, scale), scale),
        "ask": statistics.fmean(asks),
        "ask p50": asks[len(asks) // 2],
        "ask p99": asks[len(asks) * 99 // 100],
    }


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def crowd(contender: Contender, num: int) -> dict[str, float]:
    """Spawn ``num`` actors, let each act once, and look at what they cost at rest; then a ring."""
    measurable = sys.platform == "linux"
    before = resident_bytes() if measurable else 0
    began = time.perf_counter()
    handles = [await contender.spawn() for _ in range(num)]
    spawn = (time.perf_counter() - began) / num * 1e6
    for handle in handles:
        await contender.ask(handle, 1)
    rest = (resident_bytes() - before) / num if measurable else float("nan")
    ring = await per_call_us(lambda: contender.ring(num, num), num)
    return {"spawn": spawn, "bytes": rest, "hop": ring - spawn, "ring": ring}


async def fairness(scale: int) -> dict[str, float]:
    """An ask alone and beside an actor whose mailbox is kept full: microseconds (p50, p99), and
    how many of the flooded actor's messages are handled meanwhile.

    In the thread's own CPU time: all of it happens on one thread and nothing in it waits for
    anything else, so this is the latency without what other processes take from a busy one. What
    they do to the caches of a thread that never rests remains in the p99; the count is exact.
    """
    async with System() as system:
        quiet = system.spawn("quiet", Counter)
        loud = system.spawn("loud", Counter, mailbox=MailboxSpec(1024, "wait"))

        async def flood() -> None:
            while True:
                await loud.send(Count(1))

        async def asks() -> tuple[list[float], int]:
            taken, most = [], 0
            for _ in range(scale):
                handled, began = loud.cell.mailbox.taken, time.thread_time()
                await quiet.ask(CountAndReturn(1))
                taken.append((time.thread_time() - began) * 1e6)
                most = max(most, loud.cell.mailbox.taken - handled)
                await asyncio.sleep(0.0002)
            return taken, most

        await asks()
        alone, _ = await asks()
        flooding = asyncio.create_task(flood())
        flooded, most = await asks()
        flooding.cancel()
        await asyncio.wait([flooding])
    result = {"overtaken": float(most)}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        result |= {
            f"alone {name}": quantile(alone, share),
            f"flooded {name}": quantile(flooded, share),
        }
    return result


async def measure(name: str, part: str, scale: int) -> dict[str, float]:
    if part == "fairness":
        return await fairness(scale // 10)
    async with CONTENDERS[name]() as contender:
        if part == "crowd":
            return await crowd(contender, NUM_ACTORS.get(name, 10_000))
        return await round_of(contender, scale)


def in_a_process(name: str, part: str, scale: int) -> dict[str, float]:
    """Each measurement in a process of its own: nobody inherits another's heap."""
    options = ["--part", part, "--name", name, "--scale", str(scale)]
    command = [sys.executable, "-m", "benchmarks.actors", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def report(names: list[str], repeats: int, scale: int) -> dict[str, Any]:
    """Measure and print; returns it by contender, and fairness."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            rounds = in_a_process(name, "rounds", scale)
            results[name].append(rounds | in_a_process(name, "crowd", scale))
    columns = ["spawn", "tell", "ask", "ask p50", "ask p99", "hop", "bytes"]
    print(f"medians of {repeats}; microseconds, and bytes per idle actor")
    print(f"{'':12}" + "".join(f"{column:>10}" for column in columns))
    for name, rounds_of in results.items():
        cells = [statistics.median(each[column] for each in rounds_of) for column in columns]
        print(f"{name:12}" + "".join(f"{cell:10.1f}" for cell in cells))
    fair = report_fairness(
        [in_a_process("greenroom", "fairness", scale) for _ in range(4 * repeats)]
    )
    kernels = {
        name: {column: figure([each[column] for each in rounds_of]) for column in columns}
        for name, rounds_of in results.items()
    }
    return {"kernels": kernels, "ask_beside_a_flooded_actor": fair}


def report_fairness(rounds: list[dict[str, float]]) -> dict[str, Figure]:
    """How much longer an ask takes beside a flooded actor: medians, and ratios by round."""
    ratios = {}
    for name in ("p50", "p99"):
        alone, flooded = (
            statistics.median(each[f"{part} {name}"] for each in rounds)
            for part in ("alone", "flooded")
        )
        ratio = figure([each[f"flooded {name}"] / each[f"alone {name}"] for each in rounds])
        ratios[f"{name} to alone"] = ratio
        print(f"ask {name}: alone {alone:.0f}, beside a flooded actor {flooded:.0f}: {ratio} times")
    most = max(each["overtaken"] for each in rounds)
    print(f"messages of the flooded actor handled during an ask: {most:.0f} at most")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", type=int, default=20_000, help="tells and asks per round")
    parser.add_argument("--part", choices=["rounds", "crowd", "fairness"])
    parser.add_argument("--name", choices=list(CONTENDERS))
    add_outputs(parser, "actors")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(uvloop.run(measure(options.name, options.part, options.scale))))
        return
    peers = ("xoscar", "pykka")
    missing = [peer for peer in peers if importlib.util.find_spec(peer) is None]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    names = [name for name in CONTENDERS if name not in missing]
    write_json(options.json, report(names, options.repeats, options.scale))


if __name__ == "__main__":
    main()
