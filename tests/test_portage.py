"""Agents as files: out of one home, into another, and what is refused."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from greenroom.actors.cli import main
from greenroom.actors.keeper_messages import Doom, Drop
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.store_messages import Evict, Recall, Unstored
from greenroom.runtime.agent_records import HearRequest
from greenroom.runtime.errors import Conflict, InvalidRequest, NotFound
from greenroom.runtime.layers import load_settings
from greenroom.runtime.parcel import BadParcel, OtherModel, ParcelTooNew
from greenroom.runtime.records import ChatMessage
from tests.test_forgetting import grep
from tests.test_hearing import hear, say, settings, within
from tests.test_verbs import SECRET, SYSTEM, checkpoint, on_disk, once, spawn
from tests.test_verbs import llama as llama
from tests.test_verbs import model as model


async def packed(house: Playhouse, agent: str) -> bytes:
    return b"".join([piece async for piece in house.export("", agent)])


async def pieces(data: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def test_an_exported_agent_goes_on_elsewhere(model: Path, tmp_path: Path) -> None:
    homes = [settings(tmp_path / name, model, "k5cv5") for name in ("here", "there")]

    async def leave(house: Playhouse) -> tuple[bytes, list[int], int]:
        await spawn(house, system=SYSTEM, ttl_s=3600, overflow="drop_oldest")
        await hear(house, SECRET)
        await say(house, "One?")
        data = await packed(house, "bob")
        told, end = await say(house, "Two?")
        return data, told, end.usage.cached_tokens

    data, told, cached = once(homes[0], leave)

    async def arrive(house: Playhouse) -> None:
        info = await house.import_agent("", None, pieces(data))
        assert (info.name, info.system, info.ttl_s) == ("bob", SYSTEM, 3600)
        again, end = await say(house, "Two?")
        assert again == told
        assert end.usage.cached_tokens == cached
        with pytest.raises(Conflict):
            await house.import_agent("", None, pieces(data))
        await house.import_agent("", "carol", pieces(data, 999))
        assert (await say(house, "Two?", "carol"))[1].usage.cached_tokens >= cached
        await house.import_agent("another", "bob", pieces(data))
        assert await packed(house, "bob") != data
        assert (await house.find("another", "bob")).num_tokens == info.num_tokens

    once(homes[1], arrive)


@pytest.mark.slow
def test_an_agent_of_the_real_model_goes_on_elsewhere(
    default_model_path: Path, tmp_path: Path
) -> None:
    """With everything as it is by default, word for word and token for token."""
    here, there = (
        load_settings(
            overrides={"home": str(tmp_path / name), "model.name": str(default_model_path)}
        ).settings
        for name in ("here", "there")
    )

    async def leave(house: Playhouse) -> tuple[bytes, list[int], Any]:
        await spawn(house, system="You are a helpful guide to the cities of Europe.")
        await say(house, "What is the capital of France?", max_tokens=16)
        await hear(house, "It is raining in Madrid.", name="Alice")
        await house.heard("", "bob")
        data = await packed(house, "bob")
        told, end = await say(house, "And what is the capital of Spain?", max_tokens=16)
        return data, told, end

    data, told, end = once(here, leave)
    assert here.memory.codec == "auto"

    async def arrive(house: Playhouse) -> None:
        await house.import_agent("", "elsewhere", pieces(data))
        again, arrived = await say(
            house, "And what is the capital of Spain?", "elsewhere", max_tokens=16
        )
        assert again == told
        assert arrived.text == end.text
        assert arrived.usage == end.usage
        assert arrived.usage.cached_tokens > 40

    once(there, arrive)


def test_what_was_evicted_is_carried_as_words(llama: Path, tmp_path: Path) -> None:
    """And is not taken for stored where it comes to: nothing there is damaged."""
    homes = [settings(tmp_path / name, llama) for name in ("here", "there")]

    async def leave(house: Playhouse) -> tuple[bytes, list[int]]:
        await say(house, "One?")
        await say(house, "Two?")
        log = await house.log("", "bob")
        keeper: Any = house.system.get("keeper")
        store: Any = house.system.get("store")
        going = tuple(entry.id for entry in log[2:])
        await keeper.ask(Doom(going))
        await keeper.ask(Drop(await store.ask(Evict(going))))
        data = await packed(house, "bob")
        await house.import_agent("", "twin", pieces(data))
        assert sorted(await store.ask(Unstored(going))) == sorted(going)
        return data, (await say(house, "Three?"))[0]

    data, told = once(homes[0], leave)

    async def arrive(house: Playhouse) -> None:
        await house.import_agent("", None, pieces(data))
        costs = [entry.recompute_tokens > 0 for entry in await house.log("", "bob")]
        assert costs == [False, False, *[True] * (len(costs) - 2)]

    async def speak(house: Playhouse) -> None:
        assert (await say(house, "Three?"))[0] == told

    within(homes[1], arrive)
    assert main(["store", "verify", "--home", str(homes[1].home)]) == 0
    within(homes[1], speak)


def test_who_arrives_is_there_with_all_of_its_memory_or_not_at_all(
    llama: Path, tmp_path: Path
) -> None:
    """Nobody speaks to half an agent, and whoever is forgotten at once stays so."""
    here = settings(tmp_path / "here", llama)

    async def leave(house: Playhouse) -> bytes:
        await spawn(house, system=SYSTEM, share="none")
        await say(house, SECRET)
        return await packed(house, "bob")

    data = once(here, leave)

    async def arrive(house: Playhouse) -> None:
        for _ in range(3):
            arriving = asyncio.create_task(house.import_agent("", None, pieces(data)))
            seen = None
            while seen is None and not arriving.done():
                with contextlib.suppress(NotFound):
                    seen = await house.find("", "bob")
            if seen is not None:
                await house.forget("", "bob")
            assert await arriving == seen
            assert seen is not None
            assert seen.num_tokens > 20
            assert await house.agents("") == []

    there = settings(tmp_path / "there", llama)
    once(there, arrive)
    assert grep(there.store_path, SECRET.encode()) == []


def test_whoever_stops_sending_leaves_nothing_behind(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is given up: the agent is not there, or all of it is; and no file stays open."""
    monkeypatch.setattr("greenroom.actors.portage.IN_MEMORY_BYTES", 4096)

    async def leave(house: Playhouse) -> tuple[bytes, int]:
        await say(house, SECRET)
        return await packed(house, "bob"), (await house.find("", "bob")).num_tokens

    data, num_tokens = once(settings(tmp_path / "here", llama), leave)

    async def arrive(house: Playhouse) -> None:
        begun = time.perf_counter()
        await house.import_agent("", "bob", pieces(data, 2048))
        whole_s = time.perf_counter() - begun
        for part in range(24):
            sending = house.import_agent("", f"bob-{part}", pieces(data, 2048))
            arriving = asyncio.create_task(sending)
            await asyncio.wait([arriving], timeout=whole_s * part / 20)
            arriving.cancel()
            await asyncio.wait([arriving])
        assert {info.num_tokens for info in await house.agents("")} == {num_tokens}

    once(settings(tmp_path / "there", llama), arrive)


def test_whoever_takes_the_name_first_keeps_it(llama: Path, tmp_path: Path) -> None:
    """Of an agent that arrives and one that begins to speak meanwhile, nothing is lost."""

    async def leave(house: Playhouse) -> bytes:
        await say(house, SECRET)
        return await packed(house, "bob")

    data = once(settings(tmp_path / "here", llama), leave)
    there = settings(tmp_path / "there", llama)

    async def arrive(house: Playhouse) -> bool:
        store: Any = house.system.get("store")
        files = await asyncio.to_thread(on_disk, there.store_path)
        arriving = asyncio.create_task(house.import_agent("", None, pieces(data)))
        while await asyncio.to_thread(on_disk, there.store_path) == files and not arriving.done():
            pass  # its first segment is being written: it is past the look whether it is there
        spoken, refused = await asyncio.gather(
            say(house, "Who are you?"), arriving, return_exceptions=True
        )
        head = (await house.find("", "bob")).head
        told = "".join(piece.segment.text for piece in await store.ask(Recall(head)))
        assert "Who are you?" in told
        assert (SECRET in told) == (not isinstance(refused, Conflict)), (spoken, refused)
        return SECRET in told

    has_arrived = once(there, arrive)
    assert bool(grep(there.store_path, SECRET.encode())) == has_arrived, "what is refused is gone"


@pytest.mark.parametrize("what", ["overheard", "heard"])
def test_who_is_awake_without_being_enrolled_loses_nothing(
    llama: Path, tmp_path: Path, what: str
) -> None:
    """Somebody listens who has never spoken, and an agent of that name arrives."""

    async def leave(house: Playhouse) -> bytes:
        await say(house, SECRET)
        return await packed(house, "bob")

    data = once(settings(tmp_path / "here", llama), leave)
    line = ChatMessage("user", "It rains in Rome. " * 20)

    async def arrive(house: Playhouse) -> None:
        store: Any = house.system.get("store")
        told = [SECRET, "Who are you?"]
        if what == "overheard":
            await house.overhear("", "bob", line)
            await house.overhear("", "bob", None)
            await house.import_agent("", None, pieces(data))
        else:
            await house.hear(HearRequest(agent="bob", content=line.content))
            with pytest.raises(Conflict):
                await house.import_agent("", None, pieces(data))
            told[0] = line.content
        await say(house, "Who are you?")
        chain = await store.ask(Recall((await house.find("", "bob")).head))
        text = "".join(piece.segment.text for piece in chain)
        assert [each.strip() in text for each in told] == [True, True]

    once(settings(tmp_path / "there", llama), arrive)


def damaged(data: bytes) -> Sequence[tuple[str, bytes]]:
    middle = len(data) // 2
    return (
        ("nothing", b""),
        ("noise", b"\x00\xff" * 4000),
        ("half", data[:middle]),
        ("no seal", data[:-2048] + bytes(1024)),
        ("a bit", data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]),
    )


def test_files_that_are_refused(
    llama: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, default_model_path: Path
) -> None:
    async def leave(house: Playhouse) -> bytes:
        await say(house, SECRET)
        return await packed(house, "bob")

    data: bytes = once(settings(tmp_path / "here", llama), leave)

    async def refuse(house: Playhouse) -> None:
        for what, file in damaged(data):
            with pytest.raises(BadParcel) as bad:
                await house.import_agent("", "carol", pieces(file))
            assert (bad.value.param, bad.value.code) == ("file", "damaged_file"), what
        later = data.replace(b'"version":1', b'"version":2', 1)
        with pytest.raises(ParcelTooNew):
            await house.import_agent("", "carol", pieces(later))
        with pytest.raises(InvalidRequest, match="cannot contain"):
            await house.import_agent("", "a b", pieces(data))
        assert await house.agents("") == []

    async def other(house: Playhouse) -> None:
        with pytest.raises(OtherModel, match="model") as conflict:
            await house.import_agent("", None, pieces(data))
        assert conflict.value.code == "other_model"
        assert await house.agents("") == []

    there = settings(tmp_path / "there", llama)
    once(there, refuse)
    assert grep(there.store_path, SECRET.encode()) == []
    strange = checkpoint("qwen3", tmp_path_factory.mktemp("other"), default_model_path)
    once(settings(tmp_path / "elsewhere", strange), other)
