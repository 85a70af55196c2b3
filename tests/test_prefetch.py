"""A cold agent's bytes are read while others decode, and nobody waits for a slow disk but it."""

import asyncio
import os
from pathlib import Path

import pytest

from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.index import Index
from greenroom.runtime.segments import chain
from greenroom.runtime.vault import Vault
from tests.test_memory import ask, model, play

__all__ = ["model"]  # the fixture
SAID = "Who comes tonight, and who came before? " * 20


# What numpy says of a file that is none when it closes it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_does_not_answer_holds_up_only_whom_it_concerns(
    model: Path, tmp_path: Path
) -> None:
    """The file of the cold agent is a pipe: reading it takes until somebody writes."""

    async def both(house: Playhouse) -> None:
        await ask(house, "cold", SAID, system="")
        await ask(house, "warm", "1 " + SAID, system="")

    play(tmp_path, model, both)
    store = tmp_path / "store"
    index = Index(store)
    contents = index.load_all()
    index.close()
    head = next(agent.head for agent in contents.agents if agent.name == "cold")
    pieces = chain(head, {each.id: each for each in contents.segments})
    longest = max(pieces, key=lambda piece: piece.used)
    path = Vault(store).path(longest.segment.id)
    path.unlink()
    os.mkfifo(path)

    async def scenario(house: Playhouse) -> None:
        cold = asyncio.ensure_future(ask(house, "cold", SAID + " Well?", system=""))
        for turn in range(3):  # decoded, encoded, committed, and read from disk themselves
            warm = await ask(house, "warm", "1 " + SAID + "Go on. " * turn, system="")
            assert warm.usage.cached_tokens > 100
        assert not cold.done()
        await asyncio.to_thread(path.write_bytes, b"")
        assert (await cold).usage.completion_tokens == 8

    play(tmp_path, model, scenario)
