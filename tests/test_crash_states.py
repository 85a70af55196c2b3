"""Power cuts: what was not synced may be gone, half there, or in another order.

SIGKILL cannot test that, since the system keeps what a killed process wrote. So the operations of
vault and index are recorded, and after each of them every state is built that a disk may be left
in: each change of a folder since its last sync made or not, by itself; each file as of its last
sync, half written, or whole. In every one of them all that was acknowledged must be there.
"""

import io
import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.runtime.audit import recall, verify
from greenroom.runtime.codec import Payload
from greenroom.runtime.index import Index
from greenroom.runtime.medium import Medium
from greenroom.runtime.mending import load
from greenroom.runtime.rows import AgentRow
from greenroom.runtime.segments import Segment, chain
from greenroom.runtime.vault import Vault
from tests.backstage import payload_of, segment


class File:
    """What a file holds, and how much of that has been synced."""

    def __init__(self) -> None:
        self.content = b""
        self.synced = b""


Node = File | None
"""What a name stands for: a file, or a folder (None)."""


class Change(NamedTuple):
    """A name that came (or went, if not ``there``) since its folder was synced."""

    path: Path
    node: Node
    there: bool


class Disk:
    """What is certain to survive, and what may."""

    def __init__(self) -> None:
        self.now: dict[Path, Node] = {}
        self.durable: dict[Path, Node] = {}
        self.pending: list[Change] = []
        self.database = b""

    def change(self, path: Path, node: Node, *, there: bool = True) -> None:
        if there:
            self.now[path] = node
        else:
            del self.now[path]
        self.pending.append(Change(path, node, there))

    def forget_temporary(self) -> None:
        """What came and went in tmp/, which is never synced, and is cleared at a start."""
        gone = {each.path for each in self.pending if not each.there and "tmp" in each.path.parts}
        self.pending = [each for each in self.pending if each.path not in gone]

    def sync_folder(self, folder: Path) -> None:
        settled = [each for each in self.pending if each.path.parent == folder]
        self.pending = [each for each in self.pending if each.path.parent != folder]
        for each in settled:
            apply(self.durable, each)

    def states(self) -> Iterator[dict[Path, bytes | None]]:
        """Every state that a power cut now may leave."""
        loose = {id(n): n for n in self.now.values() if n is not None and n.content != n.synced}
        forms = [
            [(key, n.synced), (key, n.content[: len(n.content) // 2]), (key, n.content)]
            for key, n in loose.items()
        ]
        for made in itertools.product((False, True), repeat=len(self.pending)):
            names = dict(self.durable)
            for each in itertools.compress(self.pending, made):
                apply(names, each)
            for chosen in itertools.product(*forms):
                content = dict(chosen)
                yield {
                    path: None if node is None else content.get(id(node), node.content)
                    for path, node in names.items()
                }


def apply(names: dict[Path, Node], change: Change) -> None:
    if change.there:
        names[change.path] = change.node
    else:
        names.pop(change.path, None)


class Recording(Medium):
    """The real disk below ``root``, with a model of what it may lose; calls ``after`` each
    operation."""

    def __init__(self, root: Path, after: Callable[[], None]) -> None:
        self.root = root
        self.disk = Disk()
        self.after = after
        self._files: dict[int, File] = {}

    def make_folder(self, path: Path) -> None:
        there = path.exists()
        super().make_folder(path)
        if not there:
            self.disk.change(path.relative_to(self.root), None)
            self.after()

    def create(self, path: Path) -> io.FileIO:
        self.disk.forget_temporary()
        file = super().create(path)
        self._files[id(file)] = node = File()
        self.disk.change(path.relative_to(self.root), node)
        self.after()
        return file

    def write(self, file: io.FileIO, data: memoryview) -> None:
        super().write(file, data)
        self._files[id(file)].content += bytes(data)
        self.after()

    def sync(self, file: io.FileIO) -> None:
        super().sync(file)
        node = self._files[id(file)]
        node.synced = node.content
        self.after()

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        if path.is_relative_to(self.root):
            self.disk.sync_folder(path.relative_to(self.root))
            self.after()

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        node = self.disk.now[source.relative_to(self.root)]
        self.disk.change(target.relative_to(self.root), node)
        self.after()

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        old, new = source.relative_to(self.root), target.relative_to(self.root)
        node = self.disk.now[old]
        self.disk.change(old, node, there=False)
        self.disk.change(new, node)
        self.after()

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        name = path.relative_to(self.root)
        self.disk.change(name, self.disk.now[name], there=False)
        self.after()

    def commit(self, database: sqlite3.Connection) -> None:
        super().commit(database)
        self.disk.database = database.serialize()
        self.after()


class Quick(Medium):
    """For looking at a state: what it does need not last."""

    def sync_folder(self, path: Path) -> None:
        """Not done."""

    def sync(self, file: io.FileIO) -> None:
        """Not done."""


class Play:
    """Agents' turns as keeper, store and custodian make them; every state is checked as it goes."""

    def __init__(self, root: Path, medium: Callable[[Path, Callable[[], None]], Recording]) -> None:
        self.root = root / "played"
        self.scratch = root / "left"
        self.seen: set[int] = set()
        self.acknowledged: dict[str, Segment] = {}
        self.committing: dict[str, Segment] = {}
        self.medium = medium(root, self.check)
        self.index = Index(self.root, self.medium)
        self.vault = Vault(self.root, medium=self.medium)

    def turn(self, name: str, parent: Segment | None, number: int) -> Segment:
        """One turn of two segments, in the order of an agent's ``grow``."""
        return self.turns({name: parent}, number)[0]

    def turns(self, parents: Mapping[str, Segment | None], number: int) -> list[Segment]:
        """Turns of several agents that end together, as the store commits them."""
        work: list[Callable[[], None]] = []
        for name, parent in parents.items():
            prompt = segment(parent, [number] * 9)
            answer = segment(prompt, [number + 1] * 9)
            number += 2
            for each in (prompt, answer):
                self.vault.write(each, with_state(each))
            self.committing[name] = answer
            work.append(partial(self.index.commit, (prompt, answer), agent(name, answer)))
        assert not any(self.index.together(work))
        answers = list(self.committing.values())
        self.acknowledged.update(self.committing)
        self.committing.clear()
        return answers

    def evict(self, *segments: Segment) -> None:
        ids = [each.id for each in segments]
        self.index.unstore(ids)
        self.vault.purge(ids)

    def collect(self, *segments: Segment) -> None:
        self.vault.purge(self.index.collect(each.id for each in segments))

    def check(self) -> None:
        """Look at every state that a power cut now would leave."""
        heads = frozenset((name, each.id) for name, each in self.acknowledged.items())
        next_heads = frozenset(each.id for each in self.committing.values())
        for state in self.medium.disk.states():
            seen = hash((heads, next_heads, frozenset(state.items()), self.medium.disk.database))
            if seen not in self.seen:
                self.seen.add(seen)
                root = self.scratch / str(len(self.seen))
                build(root, state, self.medium.disk.database)
                self.look(root / "played")
                shutil.rmtree(root)

    def look(self, root: Path) -> None:
        """As a server does at its start."""
        if not self.acknowledged and not (root / "index.sqlite").exists():
            return
        index = Index(root, Quick())
        try:
            vault = Vault(root, medium=Quick())
            vault.clear_temporary()
            contents = load(index, lambda each: recall(vault, each))
            found = verify(index, vault, lambda done, total: None)
        finally:
            index.close()
        assert all(each.harmless for each in found), found
        segments = {each.id: each for each in contents.segments}
        heads = {each.name: each.head for each in contents.agents}
        for name, head in self.acknowledged.items():
            allowed = {head.id}
            if name in self.committing:
                allowed.add(self.committing[name].id)
            assert heads.get(name) in allowed
            for piece in chain(heads[name], segments):
                if piece.segment.id not in contents.evicted:
                    _, payload = vault.read(piece.segment.id)
                    assert payload.arrays.keys() == with_state(piece.segment).arrays.keys()


def with_state(each: Segment) -> Payload:
    """Keys and values, and a state, which has a file of its own."""
    payload = payload_of(each)
    return Payload(
        payload.codec,
        payload.num_tokens,
        {**payload.arrays, "1.early0.0": np.full(8, each.start, np.float32)},
    )


def agent(name: str, head: Segment) -> AgentRow:
    return AgentRow(
        namespace="n",
        name=name,
        head=head.id,
        system=None,
        fingerprint="f",
        created=1.0,
        last_used=2.0,
    )


def build(root: Path, state: dict[Path, bytes | None], database: bytes) -> None:
    """Lay a state down. What is in a folder that is not there is not there."""
    root.mkdir(parents=True)
    for path in sorted(state):
        target = root / path
        if not target.parent.exists():
            continue
        content = state[path]
        if content is None:
            target.mkdir()
        else:
            target.write_bytes(content)
    if database and (root / "played").exists():
        (root / "played" / "index.sqlite").write_bytes(database)


def script(play: Play) -> None:
    """A second agent goes on from the first one's turn, is evicted, begins anew, and returns."""
    first = play.turn("alice", None, 1)
    second = play.turn("bob", first, 3)
    play.evict(second)
    play.turn("bob", None, 5)
    play.collect(second, segment(first, [3] * 9))
    play.turn("bob", first, 3)
    play.turns({"alice": first, "carol": None}, 7)


def test_no_power_cut_loses_what_was_acknowledged(tmp_path: Path) -> None:
    play = Play(tmp_path, Recording)
    script(play)
    play.index.close()
    assert len(play.seen) > 100


class NoFileSync(Recording):
    def sync(self, file: io.FileIO) -> None:
        """Not done."""


class NoFolderSync(Recording):
    def sync_folder(self, path: Path) -> None:
        if len(path.name) != 2:
            super().sync_folder(path)


@pytest.mark.parametrize("medium", [NoFileSync, NoFolderSync])
def test_a_missing_sync_would_be_noticed(
    tmp_path: Path, medium: Callable[[Path, Callable[[], None]], Recording]
) -> None:
    with pytest.raises(AssertionError, match=r"missing file|damaged file"):
        script(Play(tmp_path, medium))


steps = st.lists(
    st.tuples(st.sampled_from(["turn", "back", "evict", "collect"]), st.integers(0, 3)),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(steps)
def test_no_power_cut_in_any_play(
    tmp_path_factory: pytest.TempPathFactory, todo: Sequence[tuple[str, int]]
) -> None:
    play = Play(tmp_path_factory.mktemp("play"), Recording)
    made: list[Segment] = []
    for number, (what, which) in enumerate(todo):
        name = ("alice", "bob")[which % 2]
        match what:
            case "turn":
                made.append(play.turn(name, play.acknowledged.get(name), 10 * number))
            case "back":
                parent = made[which % len(made)] if made else None
                made.append(play.turn(name, parent, which))
            case "evict" if made:
                play.evict(made[which % len(made)])
            case "collect":
                play.collect(*reversed(made))
            case _:
                pass
    play.index.close()
