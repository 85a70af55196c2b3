"""What can be done with an agent's memory: whole houses of tiny models, each with a disk."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mlx_lm.utils import load_config

from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.store_messages import Recall
from greenroom.actors.turn import past
from greenroom.runtime.admission import Holdings
from greenroom.runtime.agent_records import SpawnRequest
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.errors import Conflict, InvalidRequest, NotFound
from greenroom.runtime.records import ChatMessage, Sampling, SessionHint, TurnRequest
from tests.menagerie import config_of
from tests.test_hearing import hear, say, settings, within
from tests.zoo import save_checkpoint

# One whose layers keep everything, one with windows; in the slow part one with states, too.
MODELS = ("llama", "gemma3_text", pytest.param("qwen3_next", marks=pytest.mark.slow))
SYSTEM = "You are Bob. " * 4
SECRET = "The safe opens with seventeen-forty-two"


@pytest.fixture(scope="module", params=MODELS)
def model(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    default_model_path: Path,
) -> Path:
    return checkpoint(request.param, tmp_path_factory.mktemp("checkpoint"), default_model_path)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    return checkpoint("llama", tmp_path_factory.mktemp("checkpoint"), default_model_path)


def checkpoint(kind: str, folder: Path, tokenizer: Path, **more: Any) -> Path:
    config = {**config_of(kind), "model_type": kind, "vocab_size": 49152, **more}
    return save_checkpoint(folder / "model", tokenizer, config)


def again(model: Path) -> int:
    """Tokens that are computed of a prompt that has been answered: none, or the last one where a
    state was kept before it."""
    return int(load_config(model)["model_type"] == "qwen3_next")


def once(settings: Any, scene: Any) -> Any:
    (result,) = within(settings, scene)
    return result


async def spawn(house: Playhouse, name: str = "bob", **wanted: Any) -> None:
    await house.spawn(SpawnRequest(name=name, **wanted))


def on_disk(store: Path) -> dict[str, int]:
    return {f.name: f.stat().st_size for f in store.rglob("*.safetensors")}


def test_forks_and_rollbacks_go_on_from_the_same_memory(model: Path, tmp_path: Path) -> None:
    """Whatever way an agent came to a segment, from there it says the same."""
    home = settings(tmp_path, model)

    async def scene(house: Playhouse) -> None:
        await spawn(house, system=SYSTEM)
        await say(house, "What is the capital of France?")
        first = await house.log("", "bob")
        files = await asyncio.to_thread(on_disk, home.store_path)
        fork = await house.fork("", "bob", "carol")
        assert await asyncio.to_thread(on_disk, home.store_path) == files
        assert (fork.head, fork.system) == (first[-1].id, SYSTEM)
        told, end = await say(house, "And of Spain?")
        repeated, forked = await say(house, "And of Spain?", "carol")
        assert repeated == told
        assert end.usage.cached_tokens >= first[-1].end - 1
        assert forked.usage.cached_tokens == end.usage.prompt_tokens - again(model)

        back = await house.rollback("", "bob", first[-1].id[:12])
        assert back.head == first[-1].id
        assert (await say(house, "And of Spain?"))[0] == told
        early = await house.fork("", "bob", "dave", at=first[-1].id)
        assert early.num_tokens == first[-1].end
        assert (await say(house, "And of Spain?", "dave"))[0] == told
        assert [a.name for a in await house.agents("")] == ["bob", "carol", "dave"]

    async def restarted(house: Playhouse) -> list[list[int]]:
        return [(await say(house, "And Italy?", agent))[0] for agent in ("bob", "carol", "dave")]

    _, answers = within(home, scene, restarted)
    assert answers[0] == answers[1] == answers[2]


def test_what_was_heard_before_a_fork_is_in_it(llama: Path, tmp_path: Path) -> None:
    async def scene(house: Playhouse) -> None:
        await spawn(house, system=SYSTEM)
        await hear(house, SECRET)
        fork = await house.fork("", "bob", "carol")
        assert fork.num_tokens > 30
        (bob, _), (carol, _) = await say(house, "Well?"), await say(house, "Well?", "carol")
        assert bob == carol

    once(settings(tmp_path, llama), scene)


def test_the_log_says_what_a_rollback_costs(model: Path, tmp_path: Path) -> None:
    """What it promises is what the next turn computes beside what is new."""
    home = settings(tmp_path, model)

    async def scene(house: Playhouse) -> None:
        await spawn(house, system=SYSTEM)
        for question in ("One?", "Two, please, in full detail?", "Three?"):
            await say(house, question)
        log = await house.log("", "bob")
        assert [e.kind for e in log] == ["system", *["prompt", "generation"] * 3]
        assert [e.end for e in log] == [sum(e.num_tokens for e in log[: n + 1]) for n in range(7)]
        assert all(e.num_bytes for e in log)
        for number in (2, 4, 6):
            name = f"at-{number}"
            await house.fork("", "bob", name, at=log[number].id)
            request = TurnRequest(
                messages=(ChatMessage("user", "Then?"),), mode="say", agent=name, max_tokens=4
            )
            probe = await house.probe(request)
            _, end = await say(house, "Then?", name, 4)
            assert probe.cached_tokens == end.usage.cached_tokens
            assert log[number].end - end.usage.cached_tokens == log[number].recompute_tokens
            assert probe.prompt_tokens == end.usage.prompt_tokens

    once(home, scene)


def test_a_lost_file_costs_what_the_log_says(llama: Path, tmp_path: Path) -> None:
    home = settings(tmp_path, llama)

    async def talk(house: Playhouse) -> Any:
        for question in ("One?", "Two?"):
            await say(house, question)
        log = await house.log("", "bob")
        assert {e.recompute_tokens for e in log} == {0}
        return log

    async def look(house: Playhouse) -> None:
        log = await house.log("", "bob")
        assert [e.recompute_tokens > 0 for e in log] == [n >= 2 for n in range(len(log))]
        assert log[-1].recompute_tokens == log[-1].end - log[1].end

    log = once(home, talk)
    home.store_path.joinpath("segments", log[2].id[:2], log[2].id + ".safetensors").unlink()
    once(home, look)


def work_of(done: StageCounters) -> StageCounters:
    """Without the steps that put in order what a turn leaves, after it has ended."""
    return msgspec.structs.replace(done, steps=0, memory=Holdings(limit=0))


def test_a_probe_runs_nothing(llama: Path, tmp_path: Path) -> None:
    history = (ChatMessage("system", SYSTEM), ChatMessage("user", "Hello?"))

    async def scene(house: Playhouse) -> None:
        before = await house.probe(TurnRequest(messages=history))
        assert (before.agent, before.cached_tokens) == (None, 0)
        assert await house.agents("") == []
        await spawn(house, system=SYSTEM)
        await say(house, "Hello?")
        worked = work_of(await house.counters())
        probe = await house.probe(TurnRequest(messages=history))
        assert (probe.agent, probe.cached_tokens) == (None, probe.prompt_tokens)
        other = await house.probe(TurnRequest(messages=history, namespace="another"))
        assert (other.agent, other.cached_tokens) == (None, 0)
        assert work_of(await house.counters()) == worked
        with pytest.raises(InvalidRequest, match="context window"):
            await house.probe(TurnRequest(messages=(ChatMessage("user", "x " * 9000),)))

    once(settings(tmp_path, llama), scene)


def test_a_probe_knows_what_was_answered_and_whose_memory_a_new_agent_begins_with(
    llama: Path, tmp_path: Path
) -> None:
    """And the branch that a history follows, whoever has left it there."""

    async def both(house: Playhouse, **wanted: Any) -> tuple[int, int]:
        request = TurnRequest(max_tokens=3, sampling=Sampling(temperature=0), **wanted)
        probe = await house.probe(request)
        async with opened(house, request) as turn:
            usage = (await turn.done()).usage
        assert probe.prompt_tokens == usage.prompt_tokens
        return probe.cached_tokens, usage.cached_tokens

    async def scene(house: Playhouse) -> None:
        system, hello = ChatMessage("system", SYSTEM), ChatMessage("user", "Hello?")
        parent = SessionHint(name="p")
        assert await both(house, messages=(system, hello), session=parent) == (0, 0)
        info = await house.find("", "p")
        chain = await house.log("", "p")
        store: Any = house.system.get("store")
        known = past(await store.ask(Recall(info.head)), None)
        further = (*known, ChatMessage("user", "Go on."))
        child = SessionHint(name="c", parent="p")
        probed, cached = await both(house, messages=further, session=child)
        assert probed == cached == chain[-1].end
        edited = (system, ChatMessage("user", "Good day?"))
        probed, cached = await both(house, messages=edited, session=parent)
        assert probed == cached >= chain[0].end
        probed, cached = await both(house, messages=further, agent="stranger")
        assert probed == cached > chain[-1].end
        asked = {"messages": (hello,), "mode": "say", "agent": "p", "key": "k"}
        for _ in range(2):
            probed, cached = await both(house, **asked)
            assert probed == cached
        assert probed == (await house.find("", "p")).num_tokens, "it was answered before"

    once(settings(tmp_path, llama), scene)


def test_who_is_not_there_and_who_is_already(llama: Path, tmp_path: Path) -> None:
    async def scene(house: Playhouse) -> None:
        for missing in (
            house.find("", "bob"),
            house.fork("", "bob", "carol"),
            house.rollback("", "bob", "0"),
            house.log("", "bob"),
            house.pin("", "bob"),
            house.forget("", "bob"),
            house.export("", "bob").__anext__(),
        ):
            with pytest.raises(NotFound) as error:
                await missing
            assert (error.value.param, error.value.code) == ("agent", "agent_not_found")
        await spawn(house, system=SYSTEM, ttl_s=60, overflow="summarize")
        for param, value in (("system", "Other."), ("share", "none")):
            with pytest.raises(Conflict) as conflict:
                await spawn(house, **{param: value})
            assert (conflict.value.param, conflict.value.code) == (param, "agent_exists")
        with pytest.raises(NotFound):
            await spawn(house, model="no-such-model")
        await spawn(house, ttl_s=90)
        info = await house.find("", "bob")
        assert (info.ttl_s, info.overflow, info.share) == (90, "summarize", "namespace")
        with pytest.raises(InvalidRequest):
            await spawn(house, ttl_s=0)
        await spawn(house, "carol")
        with pytest.raises(Conflict):
            await house.fork("", "bob", "carol")
        with pytest.raises(InvalidRequest):
            await house.pin("", "carol")
        await say(house, "Hello?")
        for name in ("", "0" * 40):
            with pytest.raises(NotFound) as lost:
                await house.rollback("", "bob", name)
            assert lost.value.code == "segment_not_found"

    once(settings(tmp_path, llama), scene)


def test_another_models_agent_is_a_conflict(
    llama: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, default_model_path: Path
) -> None:
    other = checkpoint("qwen3", tmp_path_factory.mktemp("other"), default_model_path)

    async def talk(house: Playhouse) -> None:
        await say(house, "Hello?")
        await spawn(house, model=house.model.name)

    async def spoil(house: Playhouse) -> None:
        with pytest.raises(Conflict) as conflict:
            await spawn(house, model=house.model.name)
        assert conflict.value.param == "model"
        await spawn(house)
        assert {e.recompute_tokens == e.end for e in await house.log("", "bob")} == {True}
        await say(house, "And now?")
        await spawn(house, model=house.model.name)

    once(settings(tmp_path, llama), talk)
    once(settings(tmp_path, other), spoil)


def test_pins_outlive_a_restart_and_keep_what_they_stand_on(llama: Path, tmp_path: Path) -> None:
    home = settings(tmp_path, llama)

    async def pin(house: Playhouse) -> str:
        await say(house, "One?")
        first = (await house.log("", "bob"))[-1].id
        await say(house, "Two?")
        assert await house.pin("", "bob", first[:10]) == first
        await house.pin("", "bob", first)
        return first

    async def look(house: Playhouse) -> None:
        (pinned,) = [e for e in await house.log("", "bob") if e.pinned]
        assert (pinned.kind, pinned.end) == ("generation", (await house.log("", "bob"))[2].end)
        await house.fork("", "bob", "carol")
        assert not any(e.pinned for e in await house.log("", "carol"))
        assert await house.unpin("", "bob", pinned.id) == pinned.id
        assert not any(e.pinned for e in await house.log("", "bob"))

    within(home, pin, look)


def test_an_agent_that_shares_nothing_reuses_nothing(llama: Path, tmp_path: Path) -> None:
    history = (ChatMessage("system", SYSTEM * 9), ChatMessage("user", "Hello?"))

    async def scene(house: Playhouse) -> None:
        await spawn(house, "loner", system=SYSTEM * 9, share="none")
        await spawn(house, "other", system=SYSTEM * 9)
        used = [(await say(house, "Hello?", n))[1].usage for n in ("loner", "other", "loner")]
        assert [u.cached_tokens for u in used[:2]] == [0, 0]
        assert used[2].cached_tokens > 100
        assert (await house.probe(TurnRequest(messages=history))).cached_tokens > 100
        await house.forget("", "other")
        assert (await house.probe(TurnRequest(messages=history))).cached_tokens == 0
        await house.fork("", "loner", "twin")
        assert (await say(house, "Again?", "twin"))[1].usage.cached_tokens > 100
        assert (await house.find("", "twin")).share == "none"

    async def restarted(house: Playhouse) -> None:
        assert (await say(house, "Still?", "loner"))[1].usage.cached_tokens > 100

    within(settings(tmp_path, llama), scene, restarted)
