"""Who is speaking, as each family of clients says it over HTTP: name, session, the answer that is
gone on from, cache key, history."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from greenroom.runtime.agent_records import SpawnRequest
from tests.front import Front, Message, Reply, fronted, said
from tests.test_verbs import checkpoint

SYSTEM = said("system", "You are a coding agent. " * 8)
PLAN = [SYSTEM, said("user", "Plan it.")]
Headers = dict[str, str]

# Of each family: the main agent, two subagents of it, and who these three are here.
FAMILIES: dict[str, tuple[Headers, Headers, Headers, tuple[str, str, str]]] = {
    "claude code": (
        {"X-Claude-Code-Session-Id": "5f1c"},
        {"X-Claude-Code-Session-Id": "5f1c", "X-Claude-Code-Agent-Id": "a1"},
        {"X-Claude-Code-Session-Id": "5f1c", "X-Claude-Code-Agent-Id": "a2"},
        ("claude-code:5f1c", "claude-code:5f1c:a1", "claude-code:5f1c:a2"),
    ),
    "codex": (
        {"session-id": "s", "thread-id": "t"},
        {"session-id": "s", "thread-id": "u", "x-codex-parent-thread-id": "t"},
        {"session-id": "s", "thread-id": "v", "x-codex-parent-thread-id": "t"},
        ("codex:s:t", "codex:s:u", "codex:s:v"),
    ),
    "opencode": (
        {"x-session-affinity": "ses_a"},
        {"x-session-affinity": "ses_b", "x-parent-session-id": "ses_a"},
        {"x-opencode-session": "ses_c", "x-parent-session-id": "ses_a"},
        ("session:ses_a", "session:ses_b", "session:ses_c"),
    ),
    "x-session-id": (
        {"x-session-id": "1"},
        {"x-session-id": "2", "x-parent-session-id": "1"},
        {"x-session-id": "3", "x-parent-session-id": "1"},
        ("session:1", "session:2", "session:3"),
    ),
    "dynamo": (
        {"X-Dynamo-Session-ID": "a"},
        {"X-Dynamo-Session-ID": "b", "X-Dynamo-Parent-Session-ID": "a"},
        {"X-Dynamo-Session-ID": "c", "X-Dynamo-Parent-Session-ID": "a"},
        ("dynamo:a", "dynamo:b", "dynamo:c"),
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    return checkpoint("llama", tmp_path_factory.mktemp("checkpoint"), default_model_path)


def play(home: Path, model: Path, *scenes: Callable[[Front], Awaitable[None]]) -> None:
    """Each scene at a door of its own on the same home: between two there is a restart."""

    async def main() -> None:
        for scene in scenes:
            async with asyncio.timeout(60), fronted(home, model) as front:
                await scene(front)

    uvloop.run(main())


def then(history: list[Message], reply: Reply, question: str) -> list[Message]:
    return [*history, said("assistant", reply.content), said("user", question)]


def test_every_family_has_its_agents_and_their_forks(model: Path, tmp_path: Path) -> None:
    """Two subagents at once are two agents; what they share with the main agent is cached, all of
    its memory where they go on from it."""

    async def scene(front: Front) -> None:
        for family, (main, one, two, names) in FAMILIES.items():
            plan = [*PLAN[:1], said("user", f"Plan it for {family}.")]
            first = await front.ask(plan, main)
            tasks = [then(plan, first, f"Do part {n}.") for n in range(2)]
            subs = await asyncio.gather(front.ask(tasks[0], one), front.ask(tasks[1], two))
            again = await front.ask(then(plan, first, "And you?"), main)
            assert (first.agent, *(sub.agent for sub in subs)) == names, family
            assert again.agent == names[0]
            assert [reply.cached for reply in (*subs, again)] == [first.known] * 3, family
            trunk = [entry.id for entry in await front.house.log("", names[0])]
            for sub in subs:
                own = [entry.id for entry in await front.house.log("", sub.agent)]
                shared = sum(a == b for a, b in zip(own, trunk, strict=False))
                assert shared == 3, "system prompt, question and answer"

    async def restarted(front: Front) -> None:
        for family, (_, one, _, names) in FAMILIES.items():
            told = [*PLAN[:1], said("user", f"Plan it for {family}.")]
            assert (await front.ask(told, one)).agent == names[1], family

    play(tmp_path, model, scene, restarted)


def test_subagents_with_a_prompt_of_their_own_share_the_system_prompt(
    model: Path, tmp_path: Path
) -> None:
    """As they begin: all at once, none of them has a memory to go on from."""
    main, one, two, names = FAMILIES["claude code"]

    async def scene(front: Front) -> None:
        replies = await asyncio.gather(
            *(
                # Long answers: who comes first is on stage still when the others come.
                front.ask([SYSTEM, said("user", f"You are number {n}.")], headers, max_tokens=100)
                for n, headers in enumerate((main, one, two))
            )
        )
        assert [reply.agent for reply in replies] == list(names)
        system = (await front.house.log("", names[0]))[0]
        assert all(cached >= system.end for cached in sorted(r.cached for r in replies)[1:])

    play(tmp_path, model, scene)


def test_a_name_comes_before_a_session_and_a_session_before_an_answer(
    model: Path, tmp_path: Path
) -> None:
    session = {"x-session-id": "1"}

    async def scene(front: Front) -> None:
        plain = await front.ask(PLAN)
        assert plain.agent.startswith("anon-")
        follow = {"previous_response_id": plain.head}
        for number, (headers, body, name) in enumerate(
            (
                ({**session, "X-Agent-Name": "bob"}, {"agent": "carol", **follow}, "bob"),
                (session, {"agent": "carol", "model": "dave@default", **follow}, "carol"),
                (session, {"model": "dave@default", **follow}, "dave"),
                (session, follow, "session:1"),
                ({}, {**follow, "prompt_cache_key": "k"}, plain.agent),
            )
        ):
            new = [said("user", f"{number} is next.")]
            reply = await front.ask(new, headers, **body)
            assert reply.agent == name, number
            assert reply.cached == plain.known, "whoever it is goes on from there"

    play(tmp_path, model, scene)


def test_an_answer_is_gone_on_from_and_branches_where_it_is_not_the_last(
    model: Path, tmp_path: Path
) -> None:
    """Only what is new is sent. The earlier answer and the later one can both be gone on from."""
    told: list[Reply] = []

    async def scene(front: Front) -> None:
        first = await front.ask(PLAN)
        second = await front.ask([said("user", "And?")], previous_response_id=first.head)
        assert (second.agent, second.cached) == (first.agent, first.known)
        # A client may repeat its system prompt.
        repeated = [SYSTEM, said("user", "And?")]
        whole = await front.ask(then(PLAN, first, "And?"), agent="whole")
        assert whole.prompt == second.prompt, "the prompt is that of the whole history"
        same = await front.ask(repeated, previous_response_id=first.head, agent="other")
        assert (same.prompt, same.content) == (second.prompt, second.content)
        branch = await front.ask([said("user", "Rather not.")], previous_response_id=first.head)
        assert (branch.agent, branch.cached) == (first.agent, first.known)
        assert (await front.house.find("", first.agent)).head == branch.head
        told.extend([second, branch])

    async def restarted(front: Front) -> None:
        second, branch = told
        for before in told:
            reply = await front.ask([said("user", "Then?")], previous_response_id=before.head)
            assert reply.cached == before.known
        assert second.agent == branch.agent

    play(tmp_path, model, scene, restarted)


def test_whoever_stands_at_an_answer_goes_on_from_it(model: Path, tmp_path: Path) -> None:
    async def scene(front: Front) -> None:
        first = await front.ask(PLAN, agent="bob")
        await front.house.fork("", "bob", "carol")
        second = await front.ask(
            [said("user", "And?")], agent="bob", previous_response_id=first.head
        )
        reply = await front.ask([said("user", "So?")], previous_response_id=first.head)
        assert reply.agent == "carol", "bob has gone on"
        reply = await front.ask([said("user", "So?")], previous_response_id=second.head)
        assert reply.agent == "bob"
        await front.house.forget("", "bob")
        status, body = await front.post([said("user", "So?")], previous_response_id=second.head)
        assert (status, body["error"]["code"]) == (400, "previous_response_not_found")

    play(tmp_path, model, scene)


def test_answers_that_there_are_not(model: Path, tmp_path: Path) -> None:
    async def scene(front: Front) -> None:
        first = await front.ask(PLAN)
        await front.house.spawn(spawned("loner"))
        alone = await front.ask(PLAN, agent="loner")
        new = [said("user", "Go on.")]
        bad = (
            "",
            "0" * 40,
            "chatcmpl-1",
            first.head[:12],
            "x" * 5000,
            "é\x00'\"; DROP",
            "../../etc",
        )
        for name in bad:
            status, body = await front.post(new, previous_response_id=name)
            assert (status, body["error"]["param"]) == (400, "previous_response_id"), name
        # Who shares nothing is gone on from by itself alone.
        status, body = await front.post(new, previous_response_id=alone.head, agent="stranger")
        assert (status, body["error"]["code"]) == (400, "previous_response_not_found")
        reply = await front.ask(new, previous_response_id=alone.head)
        assert (reply.agent, reply.cached) == ("loner", alone.known)
        for conversation in ("", " ", {"id": ""}):
            status, body = await front.post(new, conversation=conversation)
            assert (status, body["error"]["param"]) == (400, "conversation")
        status, _ = await front.post(new, conversation="c", previous_response_id=first.head)
        assert status == 400
        names = [info.name for info in await front.house.agents("")]
        assert names == sorted([first.agent, "loner", "stranger"]), "only who was named is made"

    play(tmp_path, model, scene)


def arrived(front: Front, agent: str) -> int:
    """How many messages an agent's mailbox has had."""
    mailbox = next(a.mailbox for a in front.house.system.inspect().actors if a.path.endswith(agent))
    return mailbox.taken + mailbox.depth


async def arrival(front: Front, agent: str, number: int) -> None:
    """Wait for the message of this number."""
    for _ in range(100_000):
        if arrived(front, agent) >= number:
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come")


def spawned(name: str) -> SpawnRequest:
    return SpawnRequest(name=name, share="none")


def test_a_conversation_is_an_agent_that_is_told_what_is_new(model: Path, tmp_path: Path) -> None:
    async def scene(front: Front) -> None:
        first = await front.ask(PLAN, conversation="conv_7")
        second = await front.ask([said("user", "And?")], conversation={"id": "conv_7"})
        assert first.agent == second.agent == "conversation:conv_7"
        assert second.cached == first.known
        other = await front.ask(PLAN, conversation="conv_8")
        assert other.agent == "conversation:conv_8"
        odd = await front.ask(PLAN, conversation="ein Gespräch / 1")
        assert odd.agent.startswith("conversation:~")

    async def restarted(front: Front) -> None:
        third = await front.ask([said("user", "Then?")], conversation="conv_7")
        assert third.cached == (await front.house.log("", "conversation:conv_7"))[4].end

    play(tmp_path, model, scene, restarted)


def test_one_agent_from_many_clients_answers_in_the_order_of_arrival(
    model: Path, tmp_path: Path
) -> None:
    """Over connections of their own; each departs from the same head, and every branch is kept."""

    async def scene(front: Front) -> None:
        first = await front.ask(PLAN, agent="bob")
        ended: list[int] = []
        before = arrived(front, "bob")

        async def client(number: int) -> Reply:
            reply = await front.ask(then(PLAN, first, f"I am client {number}."), agent="bob")
            ended.append(number)
            return reply

        tasks = []
        for number in range(6):
            tasks.append(asyncio.ensure_future(client(number)))
            await arrival(front, "bob", before + number + 1)
        replies = await asyncio.gather(*tasks)
        assert ended == list(range(6))
        assert all(reply.cached == first.known for reply in replies)
        for number, reply in enumerate(replies):
            history = then(PLAN, first, f"I am client {number}.")
            again = await front.ask(then(history, reply, "Go on."), agent="bob")
            assert again.cached == reply.known, "every branch is there"

    play(tmp_path, model, scene)
