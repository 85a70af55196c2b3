"""What is left of agents that are forgotten: all that others need of them, and nothing else."""

import asyncio
from pathlib import Path

import pytest

from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.errors import NotFound
from greenroom.runtime.records import ChatMessage, Sampling, TurnDone, TurnRequest
from tests.test_hearing import hear, say, settings
from tests.test_verbs import SECRET, SYSTEM, on_disk, once, spawn
from tests.test_verbs import llama as llama
from tests.test_verbs import model as model


def grep(folder: Path, *needles: bytes) -> list[str]:
    files = [f for f in folder.rglob("*") if f.is_file()]
    return [f.name for f in files if any(n in f.read_bytes() for n in needles)]


def test_forgetting_leaves_no_byte(model: Path, tmp_path: Path) -> None:
    """Not in a file, the database or its log: of heard, said, edited and abandoned words."""
    home = settings(tmp_path, model)
    edited = (ChatMessage("user", f"{SECRET}, edited."),)

    async def scene(house: Playhouse) -> tuple[int, dict[str, int]]:
        await spawn(house, "keeper", system=SYSTEM)
        await say(house, "Stay.", "keeper")
        kept = await asyncio.to_thread(on_disk, home.store_path)
        await spawn(house, system=SYSTEM)
        await hear(house, SECRET)
        await house.heard("", "bob")
        for number in range(12):
            await say(house, f"{SECRET}, part {number}.", max_tokens=2)
        await house.pin("", "bob")
        request = TurnRequest(messages=edited, agent="bob", max_tokens=2)
        async with await house.open_turn(request) as channel:
            async for _ in channel:
                pass
        assert await asyncio.to_thread(grep, home.store_path, SECRET.encode())
        every = await asyncio.to_thread(on_disk, home.store_path)
        gone = await house.forget("", "bob")
        assert await asyncio.to_thread(on_disk, home.store_path) == kept
        files = [each for each in every.keys() - kept.keys() if ".state." not in each]
        assert gone.num_segments == len(files)
        assert gone.num_bytes == sum(every.values()) - sum(kept.values())
        with pytest.raises(NotFound):
            await house.find("", "bob")
        left = await asyncio.to_thread(grep, home.store_path, SECRET.encode(), b"bob")
        assert left == []
        _, new = await say(house, "Who are you?")
        assert (await house.find("", "bob")).system is None
        assert new.usage.cached_tokens < 10
        _, old = await say(house, "Still here?", "keeper")
        assert old.usage.cached_tokens > 40
        return gone.num_segments, kept

    once(home, scene)
    assert grep(home.store_path, SECRET.encode()) == []


def test_what_others_need_is_not_forgotten(llama: Path, tmp_path: Path) -> None:
    home = settings(tmp_path, llama)

    async def scene(house: Playhouse) -> None:
        await spawn(house, system=SYSTEM)
        await say(house, "One?")
        await house.fork("", "bob", "carol")
        await say(house, "Two?")
        told = asyncio.ensure_future(say(house, "Three?", max_tokens=30))
        await asyncio.sleep(0)
        gone, (_, end) = await asyncio.gather(house.forget("", "bob"), told)
        assert end.usage.completion_tokens > 1, "the turn that ran was let finish"
        assert gone.num_segments == 4
        log = await house.log("", "carol")
        assert [e.recompute_tokens for e in log] == [0, 0, 0]
        assert (await say(house, "Two?", "carol"))[1].usage.cached_tokens >= log[-1].end - 1

    once(home, scene)


def test_what_others_have_left_behind_is_not_forgotten(llama: Path, tmp_path: Path) -> None:
    """An edited history of carol may still be returned to when bob is forgotten; once carol is,
    too, nobody's words are left."""
    home = settings(tmp_path, llama)
    other, shared = "Carol hides a ring", "Both know of the bridge"

    async def chat(house: Playhouse, agent: str, *told: str) -> TurnDone:
        messages = (ChatMessage("system", SYSTEM), *(ChatMessage("user", each) for each in told))
        request = TurnRequest(
            messages=messages, agent=agent, max_tokens=2, sampling=Sampling(temperature=0)
        )
        async with opened(house, request) as turn:
            return await turn.done()

    async def left(*needles: str) -> list[str]:
        return await asyncio.to_thread(grep, home.store_path, *(n.encode() for n in needles))

    async def scene(house: Playhouse) -> None:
        before = await chat(house, "carol", other)
        await chat(house, "carol", "Never mind.")
        await chat(house, "bob", SECRET)
        await chat(house, "bob", "Never mind, either.")
        await house.forget("", "bob")
        assert await left(SECRET, "either") == []
        assert await left(other)
        again = await chat(house, "carol", other)
        assert again.usage.cached_tokens == before.usage.prompt_tokens, "all of it is there"
        await chat(house, "carol", "Never mind again.")

        # Bob's words on which a fork of his stood are the fork's, too, until that is forgotten.
        await chat(house, "bob", shared)
        await house.fork("", "bob", "dave")
        await say(house, "And then?", "dave", 2)
        await chat(house, "dave", "Something else.")
        await chat(house, "bob", "Something else, too.")
        await house.forget("", "bob")
        assert await left("else, too") == []
        assert await left(shared)
        await house.forget("", "dave")
        assert await left(shared, "And then?", "Something else.") == []
        assert await left(other), "carol's is still there"
        await house.forget("", "carol")
        assert await left(other, "Never mind") == []

    once(home, scene)
