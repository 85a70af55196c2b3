"""What branches of one trunk take: on disk, hot and decoded, counted in bytes."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.codec import DEFAULT_CODEC
from tests.test_hearing import STORY, say, settings, within
from tests.test_verbs import SYSTEM, checkpoint, on_disk, spawn

BRANCHES = 4


class Taken(msgspec.Struct, frozen=True):
    """Bytes on disk (of segments), hot in memory, and in decoded copies."""

    disk: int
    hot: int
    decoded: int


async def taken(house: Playhouse, home: Any) -> Taken:
    """Once the stage has brought its copies into their form."""
    files = await asyncio.to_thread(on_disk, home.store_path)
    for _ in range(20):
        status = await house.status()
    return Taken(sum(files.values()), status.hot.num_bytes, status.stage.memory.resident)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    return checkpoint("llama", tmp_path_factory.mktemp("checkpoint"), default_model_path)


def test_four_branches_at_once_share_their_trunk_three_times(model: Path, tmp_path: Path) -> None:
    home = settings(tmp_path, model, DEFAULT_CODEC)

    async def scene(house: Playhouse) -> None:
        await spawn(house, system=SYSTEM)
        await say(house, STORY * 40)
        trunk, length = await taken(house, home), (await house.find("", "bob")).num_tokens
        assert length > 600
        for number in range(BRANCHES):
            await house.fork("", "bob", f"branch-{number}")
        assert await taken(house, home) == trunk, "a fork copies nothing"
        ends = await asyncio.gather(
            *(say(house, f"What of {n}?", f"branch-{n}", 4) for n in range(BRANCHES))
        )
        assert [end.usage.cached_tokens for _, end in ends] == [length] * BRANCHES
        own = 0
        for number in range(BRANCHES):
            log = await house.log("", f"branch-{number}")
            own += sum(entry.num_bytes for entry in log if entry.end > length)
        now = await taken(house, home)
        assert now.hot - trunk.hot == own, "hot: their own tokens"
        assert own < 0.25 * trunk.hot
        assert now.disk - trunk.disk < own + BRANCHES * 2 * 4096, "on disk: and their headers"
        # Two are on stage at once and need one each, with room behind it; a third may enter while
        # one is just ending.
        assert now.decoded < BRANCHES * trunk.decoded, "five stand on it"

    async def one_after_the_other(house: Playhouse) -> None:
        await say(house, "Well?", "bob", 4)
        trunk = await taken(house, home)
        before = (await house.counters()).resident_hits
        for number in range(BRANCHES):
            await say(house, "Go on.", f"branch-{number}", 4)
        assert (await taken(house, home)).decoded < 1.3 * trunk.decoded, "one decoded trunk"
        assert (await house.counters()).resident_hits - before == BRANCHES

    within(home, scene, one_after_the_other)
