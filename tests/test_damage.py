"""A store that was hurt while nobody served: the next turn goes on from the deepest good segment,
with the answer that it would have given."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.index import Index
from greenroom.runtime.records import TurnDone
from greenroom.runtime.segments import Piece, chain, make_segment
from greenroom.runtime.vault import Vault
from tests.test_memory import ask, model, play

__all__ = ["model"]  # the fixture
SYSTEM = "Be kind to every guest. " * 20
TURNS = ("Who comes tonight?" * 9, "And who else?" * 9, "What do they eat?" * 9)


class Theatre(NamedTuple):
    """A home whose alice has said two turns, and what a third is answered there."""

    home: Path
    told: str
    unharmed: TurnDone
    pieces: tuple[Piece, ...]


async def told(house: Playhouse, turns: int, before: str = "") -> tuple[str, TurnDone]:
    """Alice is asked one thing after the other, with all that was said before."""
    for number in range(before.count("\n"), turns):
        before += TURNS[number]
        done = await ask(house, "alice", before, system=SYSTEM)
        before += done.text + "\n"
    return before, done


@pytest.fixture(scope="module")
def theatre(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Theatre:
    home = tmp_path_factory.mktemp("theatre")
    said: list[tuple[str, TurnDone]] = []

    async def begin(house: Playhouse) -> None:
        said.append(await told(house, 2))

    async def end(house: Playhouse) -> None:
        said.append(await told(house, 3, said[0][0]))

    play(home / "begun", model, begin)
    shutil.copytree(home / "begun", home / "ended")
    play(home / "ended", model, end)
    index = Index(home / "begun" / "store")
    contents = index.load_all()
    index.close()
    (alice,) = contents.agents
    pieces = chain(alice.head, {each.id: each for each in contents.segments})
    assert len(pieces) >= 4
    return Theatre(home / "begun", said[0][0], said[1][1], pieces)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 16
    path.write_bytes(content)


def replace(path: Path) -> None:
    path.write_bytes(b"JFIF" * 1000)


def swap_model(path: Path) -> None:
    """The same words and bytes, of another model, under the same name."""
    vault = Vault(path.parents[2])
    segment, payload = vault.read(path.stem)
    vault.delete(segment.id)
    stranger = make_segment(
        parent=segment.parent,
        start=segment.start,
        tokens=segment.tokens,
        text=segment.text,
        kind=segment.kind,
        namespace=segment.namespace,
        fingerprint="another model",
        codec=segment.codec,
        messages=segment.messages,
        transcript_base=segment.transcript_base,
    )
    vault.write(stranger, payload)
    vault.path(stranger.id).rename(path)


def halve(path: Path) -> None:
    """As if its write had been interrupted."""
    path.rename(path.parents[2] / "tmp" / "0123")


@pytest.mark.parametrize(
    ("harm", "place"),
    [(truncate, 2), (flip, 2), (replace, 2), (swap_model, 2), (Path.unlink, 0), (halve, 0)],
)
def test_the_answer_is_that_of_an_unharmed_store(
    theatre: Theatre, model: Path, tmp_path: Path, harm: Callable[[Path], None], place: int
) -> None:
    home = tmp_path / "home"
    shutil.copytree(theatre.home, home)
    hurt = theatre.pieces[place]
    harm(Vault(home / "store").path(hurt.segment.id))

    async def scenario(house: Playhouse) -> None:
        _, done = await told(house, 3, theatre.told)
        assert done.text == theatre.unharmed.text
        assert done.usage.cached_tokens <= hurt.segment.start
        assert done.usage.cached_tokens >= hurt.segment.start - 1
        _, again = await told(house, 3, theatre.told)
        assert again.usage.cached_tokens >= done.usage.prompt_tokens - 1, "it is whole again"

    play(home, model, scenario)
