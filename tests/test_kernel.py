"""Random interleavings of everything that can happen to actors, against the kernel's guarantees.

Hypothesis writes the script and draws the loop's seed; a model knows what each message may and
may not have come to.
"""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.runtime.errors import (
    ActorFailed,
    ActorStopped,
    AskTimeout,
    MailboxFull,
)
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.message import Terminated
from greenroom.runtime.ref import Ref
from greenroom.runtime.supervise import Backoff, Supervision
from greenroom.runtime.system import System
from greenroom.runtime.testkit import Probe, run
from tests.troupe import BoomError, Order, Work, Worker

NAMES = ("a", "b", "c")
CAPACITY = 4
POLICIES = {
    "one": Supervision(max_restarts=3, window_s=20.0, backoff=Backoff(initial_s=0.5, jitter=0.3)),
    "all": Supervision(
        scope="all", max_restarts=3, window_s=20.0, backoff=Backoff(initial_s=0.5, jitter=0.3)
    ),
}

STEPS = st.one_of(
    st.tuples(st.just("spawn"), st.sampled_from(NAMES)),
    st.tuples(st.just("tell"), st.sampled_from(NAMES), st.sampled_from([0.0, 0.0, 0.3, 1.0])),
    st.tuples(st.just("ask"), st.sampled_from(NAMES), st.sampled_from([0.0, 0.3, 1.0, 3.0])),
    st.tuples(st.just("ask"), st.sampled_from(NAMES), st.sampled_from([0.0, 0.3, 1.0, 3.0])),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("crash"), st.sampled_from(NAMES), st.sampled_from([0.0, 0.5])),
    st.tuples(st.just("fail"), st.sampled_from(NAMES)),
    st.tuples(st.just("stop"), st.sampled_from(NAMES), st.sampled_from([0.5, 2.0, 30.0])),
    st.tuples(st.just("kill"), st.sampled_from(NAMES)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.0, 0.2, 1.0, 12.0])),
)


class Subject(Worker):
    """Records, per actor, how handlings begin and end."""

    def __init__(self, world: "World") -> None:
        super().__init__([])
        self.world = world

    async def on_start(self) -> None:
        key = self.context.self_ref
        assert key not in self.world.instances, "two instances of one actor"
        self.world.instances[key] = self
        self.world.generations[key].append(self.context.generation)

    def left(self) -> None:
        self.world.instances.pop(self.context.self_ref, None)

    async def on_stop(self) -> None:
        assert self.world.instances.get(self.context.self_ref) is self
        self.left()

    def on_crash(self, error: BaseException) -> None:
        self.left()

    async def work(self, label: str, seconds: float) -> str:
        world, key = self.world, self.context.self_ref
        assert world.instances.get(key) is self, "an instance acts that was given up"
        assert key not in world.handling, "two messages at a time"
        world.handling.add(key)
        world.begun[label] += 1
        world.order[key].append(label)
        try:
            await asyncio.sleep(seconds)
            if label.startswith("crash"):
                raise BoomError
        finally:
            world.handling.discard(key)
        world.done[label] += 1
        return label


class World:
    """The script's effects, and what the model expects of them."""

    def __init__(self, system: System, supervision: Supervision) -> None:
        self.system = system
        self.supervision = supervision
        self.refs: dict[str, Ref[Order]] = {}
        self.all_refs: set[Ref[Order]] = set()
        self.instances: dict[Ref[Order], Subject] = {}
        self.generations: dict[Ref[Order], list[int]] = {}
        self.order: dict[Ref[Order], list[str]] = {}
        self.handling: set[Ref[Order]] = set()
        self.begun: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.accepted: dict[Ref[Order], list[str]] = {}
        self.refused: set[str] = set()
        self.asks: dict[str, asyncio.Task[str]] = {}
        self.ends: list[asyncio.Task[Any]] = []
        self.probe = Probe[Any](system)
        self.labels = 0

    def label(self, kind: str) -> str:
        self.labels += 1
        return f"{kind} {self.labels}"

    def spawn(self, name: str) -> None:
        ref = self.system.spawn_or_get(
            name,
            lambda: Subject(self),
            supervision=self.supervision,
            mailbox=MailboxSpec(capacity=CAPACITY),
            passivate_after_s=10.0,
        )
        if ref not in self.all_refs:
            self.all_refs.add(ref)
            self.refs[name] = ref
            self.generations[ref], self.order[ref], self.accepted[ref] = [], [], []
            self.probe.watch(ref)

    def tell(self, name: str, seconds: float, kind: str = "tell") -> None:
        label = self.label(kind)
        try:
            self.refs[name].tell(Work(label, seconds))
        except (MailboxFull, ActorStopped):
            self.refused.add(label)
        else:
            self.accepted[self.refs[name]].append(label)

    def ask(self, name: str, seconds: float) -> None:
        label = self.label("ask")
        self.asks[label] = asyncio.create_task(
            self.refs[name].ask(Work(label, seconds), timeout=2.0)
        )

    def step(self, action: str, *args: Any) -> None:
        if action == "spawn":
            self.spawn(args[0])
            return
        if action == "cancel":
            asks = list(self.asks.values())
            if asks:
                asks[args[0] % len(asks)].cancel()
            return
        ref = self.refs[args[0]]
        match action:
            case "tell" | "crash":
                self.tell(args[0], args[1], action)
            case "ask":
                self.ask(args[0], args[1])
            case "fail":
                if ref.cell.context is not None:
                    ref.cell.context.fail(BoomError())
            case "stop":
                self.ends.append(asyncio.create_task(self.system.stop(ref, args[1])))
            case "kill":
                self.ends.append(asyncio.create_task(self.system.kill(ref)))
            case _:
                raise ValueError(action)

    def check_asks(self) -> None:
        """Every ask ends, once, in one of the ways that are promised."""
        for label, ask in self.asks.items():
            assert ask.done(), f"{label} hangs"
            assert self.begun[label] <= 1, f"{label} was replayed"
            if ask.cancelled():
                continue
            error = ask.exception()
            if error is None:
                assert ask.result() == label
                assert self.done[label] == 1
            elif isinstance(error, MailboxFull):
                assert self.begun[label] == 0
            else:
                assert isinstance(error, (ActorStopped, ActorFailed, AskTimeout))
                assert self.done[label] == 0, f"{label} was done but failed"

    def check_tells(self) -> None:
        """At most once, in order, and either begun or a dead letter."""
        dead = Counter(
            letter.message.label
            for letter in self.system.dead_letters.latest
            if isinstance(letter.message, Work)
        )
        for ref, accepted in self.accepted.items():
            begun = [label for label in self.order[ref] if not label.startswith("ask")]
            assert begun == [label for label in accepted if label in begun], "out of order"
            for label in accepted:
                assert self.begun[label] <= 1, f"{label} was replayed"
                lost = self.begun[label] == 0
                assert not lost or dead[label] == 1, f"{label} vanished"
                if label.startswith("crash") or self.done[label] == 0:
                    assert dead[label] == 1, f"{label} failed silently"
                else:
                    assert dead[label] == 0
        for label in self.refused:
            assert self.begun[label] == 0, f"{label} was refused and handled"


Script = list[tuple[Any, ...]]
ANY_INTERLEAVING = given(
    script=st.lists(STEPS, min_size=5, max_size=60),
    scope=st.sampled_from(["one", "all"]),
    seed=st.integers(0, 2**32),
)


@ANY_INTERLEAVING
@settings(max_examples=250)
def test_the_guarantees_hold_for_any_interleaving(script: Script, scope: str, seed: int) -> None:
    play(script, scope, seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@ANY_INTERLEAVING
@settings(max_examples=10_000)
def test_the_guarantees_hold_for_thousands(script: Script, scope: str, seed: int) -> None:
    play(script, scope, seed)


def play(script: Script, scope: str, seed: int) -> None:
    """Run the script, let everything settle, and compare with what the model allows."""

    async def main() -> None:
        async with System(seed=seed) as system:
            world = World(system, POLICIES[scope])
            for name in NAMES:
                world.spawn(name)
            for action, *args in script:
                if action == "wait":
                    await asyncio.sleep(args[0])
                else:
                    world.step(action, *args)
            await asyncio.sleep(300.0)
            for info in system.inspect().actors:
                assert info.current is None, f"{info.path} is stuck"
                assert info.mailbox.depth == 0
                assert info.mailbox.high_water <= CAPACITY or info.path == "probe"
            assert all(end.done() for end in world.ends)
            gone = [ref for ref in world.all_refs if ref.cell.reason is not None]
            told = [message.ref for message in world.probe.received]
            assert all(isinstance(message, Terminated) for message in world.probe.received)
            assert sorted(map(repr, told)) == sorted(map(repr, gone))
            for ref in world.all_refs:
                numbers = world.generations[ref]
                assert numbers == sorted(set(numbers)), "a generation came twice"
            world.check_asks()
            world.check_tells()
        assert not world.instances, "an instance outlived the system"
        assert not world.handling

    run(main, seed=seed)
