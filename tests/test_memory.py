"""One budget for memories at rest, in a whole house with a tiny model."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop

from greenroom.actors.app import open_house
from greenroom.actors.custodian_messages import Cleared, Tidy
from greenroom.actors.keeper_messages import Held, Weigh
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import ChatMessage, Sampling, TurnDone, TurnRequest
from tests.menagerie import config_of
from tests.zoo import save_checkpoint

# About 2,000 tokens.
SYSTEM = " ".join(f"Rule {n}: be kind to guest {n * n}." for n in range(135))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    config = {
        **config_of("llama"),
        "model_type": "llama",
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
    }
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    return save_checkpoint(folder, default_model_path, config)


async def ask(house: Playhouse, agent: str, content: str, *, system: str = SYSTEM) -> TurnDone:
    request = TurnRequest(
        messages=(ChatMessage("system", system), ChatMessage("user", content)),
        mode="chat",
        agent=agent,
        max_tokens=8,
        sampling=Sampling(temperature=0),
    )
    async with opened(house, request) as turn:
        return await turn.done()


async def hot(house: Playhouse) -> Held:
    keeper: Any = house.system.get("keeper")
    held: Held = await keeper.ask(Weigh())
    return held


def play(home: Path, model: Path, scenario: Any, **memory: int) -> None:
    overrides = {f"memory.{key}": str(value) for key, value in memory.items()}
    overrides |= {"home": str(home), "model.name": str(model), "memory.codec": "float"}
    settings = load_settings(overrides=overrides).settings

    async def main() -> None:
        async with open_house(settings) as house:
            await scenario(house)

    uvloop.run(main())


async def on_disk(home: Path) -> int:
    def count() -> int:
        files = (home / "store").rglob("*")
        return sum(file.stat().st_size for file in files if "index" not in file.name)

    return await asyncio.to_thread(count)


def test_ten_agents_hold_and_store_a_shared_system_prompt_once(model: Path, tmp_path: Path) -> None:
    async def scenario(house: Playhouse) -> None:
        first = await ask(house, "agent-0", "What is rule 0?")
        assert first.usage.prompt_tokens > 2000
        one, disk = await hot(house), await on_disk(tmp_path)
        for number in range(1, 10):
            done = await ask(house, f"agent-{number}", f"What is rule {number}?")
            assert done.usage.cached_tokens > 2000
        ten = await hot(house)
        assert ten.num_bytes < 1.2 * one.num_bytes
        assert disk > one.num_bytes
        assert await on_disk(tmp_path) < 1.2 * disk
        assert ten.evicted == 0

    play(tmp_path, model, scenario)


def test_copies_make_way_for_encoded_segments_and_those_for_newer_ones(
    model: Path, tmp_path: Path
) -> None:
    async def scenario(house: Playhouse) -> None:
        question = "Well? " * 280
        await ask(house, "agent-0", question, system="")
        await ask(house, "agent-0", question + "Yes?", system="")
        assert (await house.counters()).resident_hits == 1, "there is room for a copy"
        for number in range(1, 4):
            await ask(house, f"agent-{number}", f"{number} {question}", system="")
            assert (await hot(house)).num_bytes <= 1 << 20
        assert (await hot(house)).evicted > 0
        await ask(house, "agent-3", f"3 {question} Yes?", system="")
        assert (await house.counters()).resident_hits == 1, "segments took the room"
        again = await ask(house, "agent-0", question, system="")
        assert again.usage.cached_tokens > 500, "read back from disk"

    play(tmp_path, model, scenario, cache_budget_mb=1)


def test_who_was_evicted_goes_on_with_every_word(model: Path, tmp_path: Path) -> None:
    """Agents take more than their quota; the first comes back to what it said, computed anew."""
    question = "Well? " * 300

    async def crowded(house: Playhouse) -> None:
        said = [await ask(house, "agent-0", question, system="")]
        for number in range(1, 8):
            await ask(house, f"agent-{number}", f"{number} {question}", system="")
        custodian: Any = house.system.get("custodian")
        cleared: Cleared = await custodian.ask(Tidy())
        assert cleared.num_bytes < cleared.quota_bytes == 2 << 20
        again = await ask(house, "agent-0", question, system="")
        assert again.usage.cached_tokens < 10, "its bytes had gone"
        assert again.text == said[0].text
        latest = await ask(house, "agent-7", f"7 {question}", system="")
        assert latest.usage.cached_tokens > 500
        infos = await house.agents("")
        assert all(info.num_tokens > 500 for info in infos)

    play(tmp_path, model, crowded, disk_quota_mb=2, cache_budget_mb=1, resident_budget_mb=0)
