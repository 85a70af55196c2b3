"""Random histories of whole agents: whatever was said, heard, edited, forked, rolled back, evicted,
restarted, forgotten or carried elsewhere before, every answer is that of a plain model to the whole
of the prompt, and everybody remembers what was said, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.actors.app import open_house
from greenroom.actors.keeper_messages import Doom, Drop
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.store_messages import Evict, Recall
from greenroom.actors.turn import past
from greenroom.runtime.loader import load
from greenroom.runtime.records import (
    ChatMessage,
    HearRequest,
    Sampling,
    SpawnRequest,
    TextDelta,
    TurnDone,
    TurnRequest,
)
from greenroom.runtime.segments import chain_tokens
from tests.test_hearing import settings as house_settings
from tests.test_verbs import checkpoint
from tests.tiny import alone

SYSTEM = "You are one of several. " * 3
MODELS = (
    "llama",
    "gemma3_text",
    pytest.param("qwen3_next", marks=pytest.mark.slow),
    pytest.param("gpt_oss", marks=pytest.mark.slow),
)
Transcript = tuple[ChatMessage, ...]

number = st.integers(0, 99)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), number),
        st.tuples(st.just("hear"), number),
        st.tuples(st.just("edit"), number),
        st.tuples(st.just("again"), number),
        st.tuples(st.just("fork"), number),
        st.tuples(st.just("rollback"), number),
        st.tuples(st.just("evict"), number),
        st.tuples(st.just("restart"), number),
        st.tuples(st.just("forget"), number),
        st.tuples(st.just("carry"), number),
    ),
    min_size=3,
    max_size=12,
)


class Ensemble:
    """The agents of one home, beside what they ought to remember.

    ``stood`` is what was remembered at each segment at which anybody ever stood; ``asked`` are all
    prompts and answers, as token ids.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self.settings = house_settings(folder, model)
        self.ought: dict[str, Transcript] = {}
        self.stood: dict[str, Transcript] = {}
        self.asked: list[tuple[list[int], list[int]]] = []
        self.made = 0
        self.house: Playhouse

    async def play(self, todo: list[tuple[str, int]]) -> None:
        """Do everything, in as many houses as there are restarts."""
        rest = [("spawn", 0), ("say", 0), *todo, ("restart", 0)]
        while rest:
            async with open_house(self.settings) as self.house:
                while rest:
                    what, much = rest.pop(0)
                    if what == "restart":
                        break
                    await self.do(what, much)
                    await self.check()
                for name in sorted(self.ought):
                    await self.say(name, ChatMessage("user", "And now?"))
                await self.check()

    async def do(self, what: str, much: int) -> None:
        """One step for one of the agents; one that has no use is none."""
        if what == "spawn" or not self.ought:
            await self.spawn()
            return
        name = sorted(self.ought)[much % len(self.ought)]
        told = self.ought[name]
        match what:
            case "say":
                await self.say(name, ChatMessage("user", f"Question {much}?"))
            case "hear":
                await self.house.hear(HearRequest(agent=name, content=f"It is {much} o'clock."))
                await self.house.heard("", name)
                heard = ChatMessage("user", f"It is {much} o'clock.", heard=True)
                await self.keep(name, (*told, heard))
            case "edit":
                ends = [0, *(n + 1 for n, m in enumerate(told) if m.role == "assistant")]
                end = max(ends[much % len(ends)], 1)
                await self.chat(name, (*told[:end], ChatMessage("user", f"Rather {much}?")))
            case "again":
                ends = [n for n, m in enumerate(told) if m.role == "assistant"]
                if ends:
                    await self.chat(name, told[: ends[much % len(ends)]])
            case "fork":
                self.made += 1
                fork = await self.house.fork("", name, f"agent-{self.made}")
                await self.keep(fork.name, told)
            case "rollback":
                known = [e.id for e in await self.house.log("", name) if e.id in self.stood]
                if known:
                    to = known[much % len(known)]
                    await self.house.rollback("", name, to)
                    self.ought[name] = self.stood[to]
            case "evict":
                await self.evict(name, much)
            case "forget":
                await self.house.forget("", name)
                del self.ought[name]
            case _:
                await self.carry(name)

    async def spawn(self) -> None:
        self.made += 1
        name = f"agent-{self.made}"
        await self.house.spawn(SpawnRequest(name=name, system=SYSTEM))
        self.ought[name] = (ChatMessage("system", SYSTEM),)

    async def say(self, name: str, message: ChatMessage) -> None:
        said = await self.turn(name, (message,), "say")
        await self.keep(name, (*self.ought[name], message, said))

    async def chat(self, name: str, told: Transcript) -> None:
        await self.keep(name, (*told, await self.turn(name, told, "chat")))

    async def turn(self, name: str, told: Transcript, mode: Any) -> ChatMessage:
        """One greedy turn, written down for ``judge``."""
        request = TurnRequest(
            messages=told,
            mode=mode,
            agent=name,
            max_tokens=5,
            sampling=Sampling(temperature=0),
        )
        answer: list[int] = []
        async with opened(self.house, request) as turn:
            async for event in turn:
                if isinstance(event, TextDelta):
                    answer += event.tokens
                elif isinstance(event, TurnDone):
                    done = event
        chain = await self.store(Recall(done.head))
        prompt = chain_tokens(chain)[: done.usage.prompt_tokens].tolist()
        self.asked.append((prompt, answer))
        return ChatMessage("assistant", done.text)

    async def evict(self, name: str, much: int) -> None:
        """Take the bytes of a segment and of all behind it away: words and token ids stay."""
        log = await self.house.log("", name)
        going = tuple(entry.id for entry in log[much % (len(log) or 1) :])
        keeper: Any = self.house.system.get("keeper")
        await keeper.ask(Doom(going))
        await keeper.ask(Drop(await self.store(Evict(going))))

    async def carry(self, name: str) -> None:
        """Out as a file, and in again under another name."""
        data = [piece async for piece in self.house.export("", name)]

        async def chunks() -> AsyncIterator[bytes]:
            for piece in data:
                yield piece

        self.made += 1
        info = await self.house.import_agent("", f"agent-{self.made}", chunks())
        await self.keep(info.name, self.ought[name])

    async def keep(self, name: str, told: Transcript) -> None:
        self.ought[name] = told
        head = (await self.house.find("", name)).head
        if head is not None:
            self.stood[head] = told

    async def check(self) -> None:
        """Everybody remembers what they ought to."""
        assert [info.name for info in await self.house.agents("")] == sorted(self.ought)
        for name, told in self.ought.items():
            info = await self.house.find("", name)
            chain = await self.store(Recall(info.head))
            assert tuple(past(chain, info.system)) == told, name

    async def store(self, request: Any) -> Any:
        store: Any = self.house.system.get("store")
        return await store.ask(request)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(100):
            await scenario

    uvloop.run(limited())


def judge(folder: Path, asked: list[tuple[list[int], list[int]]]) -> None:
    """Every answer is the plain model's, which knows no caches but its own."""
    model = load(folder, device="cpu").model
    for prompt, answer in asked:
        assert answer == alone(model, prompt, len(answer))


@pytest.fixture(scope="module", params=MODELS)
def model(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    default_model_path: Path,
) -> Path:
    return checkpoint(request.param, tmp_path_factory.mktemp("checkpoint"), default_model_path)


def live(model: Path, todo: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        ensemble = Ensemble(Path(folder), model)
        run(ensemble.play(todo))
    judge(model, ensemble.asked)


FIXED = [
    ("say", 1),
    ("hear", 2),
    ("say", 3),
    ("fork", 0),
    ("edit", 1),
    ("rollback", 1),
    ("evict", 2),
    ("say", 0),
    ("carry", 1),
    ("restart", 0),
    ("forget", 0),
    ("again", 1),
    ("say", 2),
]


def test_one_long_history(model: Path) -> None:
    live(model, FIXED)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(steps)
def test_any_history(model: Path, todo: list[tuple[str, int]]) -> None:
    live(model, todo)
