"""Many clients at once who do whatever there is to be done with a few agents, and leave when they
like: nobody gets a wrong answer, nothing is lost that was promised, and the store is sound."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from greenroom.actors.app import open_house
from greenroom.actors.cli import main
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.store_messages import Recall
from greenroom.runtime.agent_records import HearRequest, SpawnRequest
from greenroom.runtime.errors import Conflict, InvalidRequest, MailboxFull
from greenroom.runtime.loader import load
from greenroom.runtime.records import ChatMessage, Sampling, TextDelta, TurnDone, TurnRequest
from greenroom.runtime.segments import chain_tokens
from tests.test_hearing import settings as house_settings
from tests.test_verbs import checkpoint
from tests.tiny import alone

NAMES = ("alice", "bob", "carol", "Zoë", "x" * 128, "a.b:c_d-9")
SYSTEM = "You are one of several. " * 3
VERBS = (
    "say",
    "say",
    "chat",
    "follow",
    "hear",
    "leave",
    "fork",
    "rollback",
    "forget",
    "pin",
    "unpin",
    "log",
    "probe",
    "carry",
)


class Melee:
    """Clients of one house; ``heads`` are all that were ever told, ``asked`` all good turns."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.heads: list[str] = []
        self.asked: list[tuple[list[int], list[int]]] = []
        self.house: Playhouse

    async def client(self, number: int, steps: int) -> None:
        for step in range(steps):
            verb, name = self.chance.choice(VERBS), self.chance.choice(NAMES)
            doing = asyncio.ensure_future(self.do(verb, name, f"{number}-{step}"))
            if self.chance.random() < 0.2:
                await asyncio.wait([doing], timeout=self.chance.random() / 20)
                doing.cancel()
            await asyncio.wait([doing])
            if not doing.cancelled():
                # It is not there, it is there already, it is busy: each of them is said so.
                with contextlib.suppress(InvalidRequest, MailboxFull):
                    doing.result()

    async def do(self, verb: str, name: str, word: str) -> None:
        house = self.house
        user = ChatMessage("user", f"What of {word}?")
        match verb:
            case "say" | "chat":
                told = (ChatMessage("system", SYSTEM), user) if verb == "chat" else (user,)
                await self.turn(TurnRequest(messages=told, mode=verb, agent=name))
            case "follow":
                head = self.chance.choice([*self.heads, "0" * 40])
                agent = self.chance.choice([name, None])
                await self.turn(
                    TurnRequest(messages=(user,), mode="say", agent=agent, follows=head)
                )
            case "leave":
                long = TurnRequest(messages=(user,), mode="say", agent=name, max_tokens=40)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.chance.random() / 20):
                        await self.turn(long)
            case "hear":
                await house.hear(HearRequest(agent=name, content=f"It is {word} o'clock."))
            case "fork":
                await house.fork("", name, self.chance.choice(NAMES))
            case "rollback":
                log = await house.log("", name)
                if log:
                    await house.rollback("", name, self.chance.choice(log).id)
            case "forget":
                await house.forget("", name)
            case "pin":
                await house.pin("", name)
            case "unpin":
                await house.unpin("", name)
            case "log":
                await house.log("", name)
            case "probe":
                await house.probe(TurnRequest(messages=(user,), mode="say", agent=name))
            case _:
                data = [piece async for piece in house.export("", name)]

                async def chunks() -> AsyncIterator[bytes]:
                    for piece in data:
                        yield piece

                await house.import_agent("", self.chance.choice(NAMES), chunks())

    async def turn(self, request: TurnRequest) -> None:
        """One greedy turn; what it came to is kept for ``judge``."""
        if request.max_tokens is None:
            request = msgspec.structs.replace(request, max_tokens=5)
        request = msgspec.structs.replace(request, sampling=Sampling(temperature=0))
        answer: list[int] = []
        async with opened(self.house, request) as turn:
            async for event in turn:
                if isinstance(event, TextDelta):
                    answer += event.tokens
                elif isinstance(event, TurnDone):
                    assert event.head is not None
                    self.heads.append(event.head)
                    store: Any = self.house.system.get("store")
                    chain = await store.ask(Recall(event.head))
                    if chain:  # else it has been forgotten meanwhile
                        prompt = chain_tokens(chain)[: event.usage.prompt_tokens].tolist()
                        self.asked.append((prompt, answer))


async def check(house: Playhouse) -> None:
    """Everybody can be looked at, and speaks."""
    for info in await house.agents(""):
        log = await house.log("", info.name)
        assert sum(entry.num_tokens for entry in log) >= info.num_tokens
        await house.heard("", info.name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    return checkpoint("llama", tmp_path_factory.mktemp("checkpoint"), default_model_path)


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 9))]
)
def test_whatever_many_do_at_once_everybody_is_answered_right(
    model: Path, tmp_path: Path, seed: int
) -> None:
    home, melee = house_settings(tmp_path, model), Melee(seed)

    async def rounds() -> None:
        for _ in range(2):  # with a restart in between
            async with asyncio.timeout(110), open_house(home) as melee.house:
                for name in NAMES[:3]:
                    with contextlib.suppress(Conflict):  # one who was made without a system prompt
                        await melee.house.spawn(SpawnRequest(name=name, system=SYSTEM))
                await asyncio.gather(*(melee.client(number, 12) for number in range(6)))
                await check(melee.house)

    uvloop.run(rounds())
    assert main(["store", "verify", "--home", str(tmp_path)]) == 0
    assert len(melee.asked) >= 10  # how many come to an answer is a matter of chance: 20 to 45
    plain = load(model, device="cpu").model
    for prompt, answer in melee.asked:
        assert answer == alone(plain, prompt, len(answer))
