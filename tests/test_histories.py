"""Random histories of whole agents: whatever was said, heard, edited, forked, rolled back, evicted,
restarted, forgotten or carried elsewhere before, every answer is that of a model which computes all
of the prompt, through the same codec at the same places; a probe has told what was cached; and
everybody remembers what was said, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.actors.app import open_house
from greenroom.actors.custodian_messages import Tidy
from greenroom.actors.keeper_messages import Doom, Drop
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.store_messages import Evict, Recall, Unstored
from greenroom.actors.turn import past
from greenroom.runtime.agent_records import HearRequest, SpawnRequest
from greenroom.runtime.codec import DEFAULT_CODEC, Payload
from greenroom.runtime.records import ChatMessage, Sampling, TextDelta, TurnDone, TurnRequest
from greenroom.runtime.segments import Piece, chain_length
from greenroom.runtime.vault import Vault
from tests.test_hearing import settings as house_settings
from tests.test_verbs import checkpoint
from tests.understudy import Part, Understudy

SYSTEM = "You are one of several. " * 3
# Layers that keep everything, windows, latents, states; the float codec shows that nothing but the
# codec makes a difference to a plain model's answers.
KINDS = (
    ("llama", DEFAULT_CODEC),
    ("gemma3_text", "float"),
    *(
        pytest.param(*kind, marks=pytest.mark.slow)
        for kind in (
            ("llama", "float"),
            ("gemma3_text", DEFAULT_CODEC),
            ("qwen3_next", "float"),
            ("qwen3_next", DEFAULT_CODEC),
            ("gpt_oss", DEFAULT_CODEC),
            ("deepseek_v2", DEFAULT_CODEC),
        )
    ),
)
# Whose checkpoints are not read without experts, as the zoo has it.
EXPERTS = {"deepseek_v2": {"n_routed_experts": 4, "n_shared_experts": 1}}
MAX_TOKENS = 5
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

    ``stood`` is what was remembered at each segment at which anybody ever stood; ``parts`` are all
    turns and all that was heard, for an ``Understudy``.
    """

    def __init__(self, folder: Path, model: Path, codec: str) -> None:
        self.settings = house_settings(folder, model, codec)
        self.ought: dict[str, Transcript] = {}
        self.stood: dict[str, Transcript] = {}
        self.parts: list[Part] = []
        self.seen: set[str] = set()
        self.made = 0
        self.house: Playhouse

    async def play(self, todo: list[tuple[str, int]]) -> None:
        """Do everything, in as many houses as there are restarts."""
        rest = [("spawn", 0), ("say", 0), *todo, ("restart", 0)]
        while rest:
            async with open_house(self.settings) as self.house:
                custodian: Any = self.house.system.get("custodian")
                await custodian.ask(Tidy())  # what goes at a start has gone
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
                before = await self.before()
                await self.house.hear(HearRequest(agent=name, content=f"It is {much} o'clock."))
                head = (await self.house.heard("", name)).head
                await self.write_down(before, head)
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
        """One greedy turn, written down for the understudy; what it finds has been foretold."""
        request = TurnRequest(
            messages=told,
            mode=mode,
            agent=name,
            max_tokens=MAX_TOKENS,
            sampling=Sampling(temperature=0),
        )
        before = await self.before()
        probe = await self.house.probe(request)
        answer: list[int] = []
        async with opened(self.house, request) as turn:
            async for event in turn:
                if isinstance(event, TextDelta):
                    answer += event.tokens
                elif isinstance(event, TurnDone):
                    done = event
        usage = done.usage
        assert (probe.agent, probe.prompt_tokens, probe.cached_tokens) == (
            name,
            usage.prompt_tokens,
            usage.cached_tokens,
        )
        await self.write_down(before, done.head, usage.prompt_tokens, answer, usage.cached_tokens)
        return ChatMessage("assistant", done.text)

    async def before(self) -> dict[str, tuple[str, ...]]:
        """Of all segments whose bytes the store still has, the names of their arrays."""
        lost: tuple[str, ...] = await self.store(Unstored(tuple(sorted(self.seen))))

        def look() -> dict[str, tuple[str, ...]]:
            vault = Vault(self.settings.store_path)
            return {i: tuple(vault.read(i)[1].arrays) for i in self.seen.difference(lost)}

        return await asyncio.to_thread(look)

    async def write_down(
        self,
        before: dict[str, tuple[str, ...]],
        head: str | None,
        num_prompt: int = 0,
        answer: Sequence[int] = (),
        cached: int | None = None,
    ) -> None:
        chain: tuple[Piece, ...] = await self.store(Recall(head))
        gone = tuple(self.seen.difference(before))
        self.seen.update(piece.segment.id for piece in chain)
        part = Part(
            chain=chain,
            held=await asyncio.to_thread(self.read, chain),
            had=before,
            num_prompt=num_prompt or chain_length(chain),
            answer=tuple(answer),
            cached=cached,
            gone=gone,
            max_tokens=MAX_TOKENS,
        )
        self.parts.append(part)

    def read(self, chain: Sequence[Piece]) -> dict[str, Payload]:
        """What is on disk of a chain."""
        vault = Vault(self.settings.store_path)
        return {p.segment.id: vault.read(p.segment.id)[1] for p in chain}

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


Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Checkpoint:
    """A checkpoint of an architecture, made once."""

    @cache
    def made(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        return checkpoint(kind, folder, default_model_path, **EXPERTS.get(kind, {}))

    return made


def live(model: Path, codec: str, todo: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        ensemble = Ensemble(Path(folder), model, codec)
        run(ensemble.play(todo))
        understudy = Understudy(model, codec)
        for part in ensemble.parts:
            understudy.play(part)


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


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_one_long_history(checkpoint_of: Checkpoint, kind: str, codec: str) -> None:
    live(checkpoint_of(kind), codec, FIXED)


EVICTED = {
    # What is said then is encoded in one piece, with the question before it.
    "found within a longer segment": [("evict", 1), ("say", 0), ("again", 0), ("again", 0)],
    # The one who asked again has new bytes, in which the fork's decoded copy has no part.
    "computed anew": [("again", 0), ("fork", 0), ("evict", 1), ("again", 0), ("say", 0)],
    # Two turns that were rolled back have kept their bytes, and stand on such as are new.
    "stood on by others": [
        ("restart", 0),
        ("restart", 0),
        ("rollback", 0),
        ("fork", 0),
        ("evict", 1),
        ("again", 0),
    ],
}


@pytest.mark.parametrize("todo", EVICTED.values(), ids=EVICTED)
@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_what_was_evicted_is(
    checkpoint_of: Checkpoint, kind: str, codec: str, todo: list[tuple[str, int]]
) -> None:
    live(checkpoint_of(kind), codec, todo)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "codec"), KINDS)
@settings(max_examples=15)
@given(todo=steps)
def test_any_history(
    checkpoint_of: Checkpoint, kind: str, codec: str, todo: list[tuple[str, int]]
) -> None:
    live(checkpoint_of(kind), codec, todo)
