"""Who a turn is for: a whole house of a tiny model, asked as clients ask."""

import asyncio
from pathlib import Path

import pytest

from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.agent_records import SpawnRequest
from greenroom.runtime.records import ChatMessage, Sampling, SessionHint, TurnDone, TurnRequest
from tests.test_hearing import settings, within
from tests.test_verbs import checkpoint

SYSTEM = ChatMessage("system", "You are a coding agent. " * 4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    return checkpoint("llama", tmp_path_factory.mktemp("checkpoint"), default_model_path)


def user(content: str) -> ChatMessage:
    return ChatMessage("user", content)


async def chat(
    house: Playhouse,
    *messages: ChatMessage,
    agent: str | None = None,
    session: SessionHint | None = None,
    max_tokens: int = 4,
) -> TurnDone:
    request = TurnRequest(
        messages=messages,
        agent=agent,
        session=session,
        max_tokens=max_tokens,
        sampling=Sampling(temperature=0),
    )
    async with opened(house, request) as turn:
        return await turn.done()


def answered(history: tuple[ChatMessage, ...], done: TurnDone) -> tuple[ChatMessage, ...]:
    return (*history, ChatMessage("assistant", done.text))


def test_parallel_subagents_of_one_session_are_agents_of_their_own(
    model: Path, tmp_path: Path
) -> None:
    async def scene(house: Playhouse) -> None:
        main = SessionHint(name="claude-code:s")
        subs = [SessionHint(name=f"claude-code:s:{n}", parent="claude-code:s") for n in "ab"]
        first = await chat(house, SYSTEM, user("Plan."), session=main)
        done = await asyncio.gather(
            *(chat(house, SYSTEM, user(f"Do {sub.name}."), session=sub) for sub in subs)
        )
        names = ["claude-code:s", "claude-code:s:a", "claude-code:s:b"]
        assert [first.agent, *(each.agent for each in done)] == names
        assert [info.name for info in await house.agents("")] == names
        heads = {info.head for info in await house.agents("")}
        assert len(heads) == 3
        assert all(each.usage.cached_tokens > 20 for each in done), "one system prompt"

    within(settings(tmp_path, model), scene)


def test_who_continues_the_parents_memory_begins_as_its_fork(model: Path, tmp_path: Path) -> None:
    async def scene(house: Playhouse) -> None:
        parent, child = SessionHint(name="p"), SessionHint(name="c", parent="p")
        history: tuple[ChatMessage, ...] = (SYSTEM, user("Plan."))
        done = await chat(house, *history, session=parent)
        history = answered(history, done)
        forked = await chat(house, *history, user("You do it."), session=child)
        assert forked.agent == "c"
        assert forked.usage.cached_tokens >= done.usage.prompt_tokens + 3
        parents, childs = await house.log("", "p"), await house.log("", "c")
        assert [e.id for e in childs[: len(parents)]] == [e.id for e in parents]
        # Without a session, whoever stands there is meant.
        again = await chat(house, *history, user("Or you?"))
        assert again.agent == "p"

    within(settings(tmp_path, model), scene)


def test_names_go_before_sessions_and_sessions_before_histories(
    model: Path, tmp_path: Path
) -> None:
    async def scene(house: Playhouse) -> None:
        history = (SYSTEM, user("Hello?"))
        hint = SessionHint(name="session:1", cache_key="k")
        done = await chat(house, *history, agent="bob", session=hint)
        assert done.agent == "bob"
        more = (*answered(history, done), user("And?"))
        assert (await house.probe(TurnRequest(messages=more))).agent == "bob"
        assert (await chat(house, *more, session=hint)).agent == "session:1"

    within(settings(tmp_path, model), scene)


def test_a_cache_key_finds_a_conversation_again_whose_history_was_altered(
    model: Path, tmp_path: Path
) -> None:
    async def scene(house: Playhouse) -> None:
        key = SessionHint(cache_key="project-7")
        first = await chat(house, SYSTEM, user("Hello?"), session=key)
        altered = (ChatMessage("system", "Nonce 4711."), user("Hello?"), user("Then?"))
        assert (await chat(house, *altered, session=key)).agent == first.agent
        other = (SYSTEM, user("Another talk."))
        assert (await chat(house, *other, session=key)).agent != first.agent
        assert (await chat(house, *altered)).agent != first.agent

    within(settings(tmp_path, model), scene)


def test_one_agent_from_many_clients_takes_turns_as_they_come_and_keeps_every_branch(
    model: Path, tmp_path: Path
) -> None:
    async def scene(house: Playhouse) -> None:
        history: tuple[ChatMessage, ...] = (SYSTEM, user("Hello?"))
        done = await chat(house, *history, agent="bob")
        history = answered(history, done)
        ended: list[int] = []

        async def client(number: int) -> TurnDone:
            told = await chat(house, *history, user(f"I am client {number}."), agent="bob")
            ended.append(number)
            return told

        tasks = []
        for number in range(4):
            tasks.append(asyncio.ensure_future(client(number)))
            await asyncio.sleep(0.01)
        turns = await asyncio.gather(*tasks)
        assert ended == [0, 1, 2, 3]
        assert (await house.find("", "bob")).head == turns[3].head
        for number, turn in enumerate(turns):
            told = (*answered((*history, user(f"I am client {number}.")), turn), user("Go on."))
            again = await house.probe(TurnRequest(messages=told, agent="bob"))
            assert again.cached_tokens >= turn.usage.prompt_tokens, "every branch is there"

    within(settings(tmp_path, model), scene)


def test_the_last_request_of_a_session_limits_the_agents_time(model: Path, tmp_path: Path) -> None:
    async def scene(house: Playhouse) -> None:
        await chat(house, user("Bye."), session=SessionHint(name="dynamo:1", final=True))
        assert (await house.find("", "dynamo:1")).ttl_s == 3600

    within(settings(tmp_path, model), scene)


def test_an_agents_time_runs_out_while_nobody_is_there_too(model: Path, tmp_path: Path) -> None:
    home = settings(tmp_path, model)

    async def scene(house: Playhouse) -> None:
        for name in ("brief", "long", "for ever"):
            await chat(house, user(f"I am {name} and hide 17-42."), agent=name.replace(" ", "-"))
        # Only now: if its time were over before it speaks, it would come anew, for ever.
        await house.spawn(SpawnRequest(name="long", ttl_s=3600))
        await house.spawn(SpawnRequest(name="brief", ttl_s=0.05))

    async def later(house: Playhouse) -> None:
        for _ in range(5000):
            if len(await house.agents("")) == 2:
                break
            await asyncio.sleep(0.01)
        assert [info.name for info in await house.agents("")] == ["for-ever", "long"]

    within(home, scene, later)
    files = [f for f in home.store_path.rglob("*") if f.is_file()]
    assert not [f for f in files if b"brief" in f.read_bytes()]


def test_a_parent_that_is_forgotten_while_its_child_begins(model: Path, tmp_path: Path) -> None:
    """At whatever moment: the child answers, from the parent's memory or from its own."""

    async def scene(house: Playhouse) -> None:
        parent, child = SessionHint(name="p"), SessionHint(name="c", parent="p")
        opening = (SYSTEM, user("Plan."))
        for moment in range(0, 80, 2):
            history = answered(opening, await chat(house, *opening, session=parent, max_tokens=1))
            begun = asyncio.ensure_future(chat(house, *history, user("You."), session=child))
            for _ in range(moment):
                await asyncio.sleep(0)
            await house.forget("", "p")
            assert (await begun).agent == "c"
            await house.forget("", "c")

    within(settings(tmp_path, model), scene)
