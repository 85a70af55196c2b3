"""Agents at work behind a store, in processes that are killed at random points.

``python -m tests.crashing ROOT NUMBER SEED`` kills as many processes, one after the other on the
same store, and prints one JSON line for each: where it was killed, and what was lost (nothing).
"""

import asyncio
import io
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.custodian import Quota
from greenroom.actors.custodian_messages import Tidy
from greenroom.runtime.audit import recall, verify
from greenroom.runtime.index import Index
from greenroom.runtime.medium import Medium
from greenroom.runtime.mending import load
from greenroom.runtime.segments import BrokenChain, Segment, chain
from greenroom.runtime.vault import Vault
from tests.backstage import Backstage, backstage, segment

T = TypeVar("T")
AGENTS = tuple(AgentKey("n", f"agent-{n}") for n in range(5))
QUOTA = Quota(400_000, 0.0)  # a few dozen segments, and no grace for branches
OPERATIONS = ("create", "write", "sync", "sync_folder", "link", "unlink", "commit")


class Deadly(Medium):
    """The real disk, which kills the process before or after the n-th operation of one kind."""

    def __init__(self, kind: str, countdown: int, *, before: bool) -> None:
        self._kind = kind
        self._countdown = countdown
        self._before = before

    def _deadly(self, kind: str, work: Callable[[], T]) -> T:
        if kind == self._kind:
            self._countdown -= 1
        if self._countdown < 0 and self._before:
            os.kill(os.getpid(), signal.SIGKILL)
        done = work()
        if self._countdown < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    def create(self, path: Path) -> io.FileIO:
        return self._deadly("create", lambda: Medium.create(self, path))

    def write(self, file: io.FileIO, data: memoryview) -> None:
        half = len(data) // 2
        Medium.write(self, file, data[:half])  # torn in the middle, when it is to be
        self._deadly("write", lambda: Medium.write(self, file, data[half:]))

    def sync(self, file: io.FileIO) -> None:
        self._deadly("sync", lambda: Medium.sync(self, file))

    def sync_folder(self, path: Path) -> None:
        self._deadly("sync_folder", lambda: Medium.sync_folder(self, path))

    def link(self, source: Path, target: Path) -> None:
        self._deadly("link", lambda: Medium.link(self, source, target))

    def unlink(self, path: Path) -> None:
        self._deadly("unlink", lambda: Medium.unlink(self, path))

    def commit(self, database: sqlite3.Connection) -> None:
        self._deadly("commit", lambda: Medium.commit(self, database))


def act(root: Path, seed: int, medium: Medium, say: Callable[[str], object]) -> None:
    """Turns of all agents, branches and rounds of the custodian, for ever."""
    dice = random.Random(seed)

    async def scenario(house: Backstage) -> None:
        heads: dict[AgentKey, Segment | None] = dict.fromkeys(AGENTS)

        async def agent(key: AgentKey) -> None:
            while True:
                parent = heads[key] if dice.random() < 0.7 else None  # else it begins anew
                prompt = segment(parent, [dice.randrange(1000)] * dice.randrange(5, 200))
                answer = segment(prompt, [dice.randrange(1000)] * dice.randrange(5, 200))
                say(f"try {key.name} {answer.id}")
                await house.turn(key, prompt, answer)
                say(f"done {key.name} {answer.id}")
                heads[key] = answer if answer.end < 1500 else None

        async def tidy() -> None:
            while True:
                await house.custodian.ask(Tidy())

        await asyncio.gather(tidy(), *(agent(key) for key in AGENTS))

    backstage(root, scenario, QUOTA, medium=medium)


def die(root: Path, dice: random.Random) -> tuple[str, dict[str, set[str]]]:
    """Run a process until it is killed; how, and on which segments agents may stand."""
    kind = dice.choice((*OPERATIONS, "time"))
    countdown, before = dice.randrange(60), dice.random() < 0.5
    delay_s = dice.uniform(0.02, 0.3)
    seed = dice.randrange(1 << 30)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            medium = Medium() if kind == "time" else Deadly(kind, countdown, before=before)
            act(root, seed, medium, lambda line: os.write(writer, f"{line}\n".encode()))
        finally:
            os._exit(1)
    os.close(writer)
    if kind == "time":
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, encoding="ascii") as pipe:
        said = [line.split() for line in pipe.read().splitlines()]
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it ended by itself"
    possible: dict[str, set[str]] = {}
    for what, name, head in said:
        if what == "done":
            possible[name] = {head}
        else:
            possible.setdefault(name, {""}).add(head)
    where = f"{kind} {'before' if before else 'after'} {countdown}" if kind != "time" else "time"
    return where, possible


def inspect(root: Path, before: dict[str, str], possible: dict[str, set[str]]) -> list[str]:
    """What is wrong with the store, which is looked at as a server does at its start."""
    index = Index(root)
    wrong: list[str] = []
    try:
        vault = Vault(root)
        broken = index.load_all().broken
        contents = load(index, lambda each: recall(vault, each))
        found = verify(index, vault, lambda done, total: None)
    finally:
        index.close()
    wrong += [f"broken {each}" for each in broken]
    wrong += [f"{each.fault} {each.subject}" for each in found if not each.harmless]
    segments = {each.id: each for each in contents.segments}
    heads = {each.name: each.head or "" for each in contents.agents}
    for name in {*before, *possible}:
        stood = before.get(name, "")
        allowed = {each or stood for each in possible.get(name, {stood})}
        if heads.get(name, "") not in allowed:
            wrong.append(f"{name} stands on {heads.get(name)}, not on one of {allowed}")
        try:
            chain(heads.get(name) or None, segments)
        except BrokenChain as error:
            wrong.append(str(error))
    before.clear()
    before.update(heads)
    return wrong


def main(arguments: Sequence[str]) -> int:
    root, number, seed = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    dice = random.Random(seed)
    heads: dict[str, str] = {}
    for _ in range(number):
        where, possible = die(root, dice)
        wrong = inspect(root, heads, possible)
        turns = len(heads)
        print(json.dumps({"killed": where, "wrong": wrong, "agents": turns}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
