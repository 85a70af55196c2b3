"""Who follows what is being said in a scene, and what of it: pure, and at an agent's own pace."""

import asyncio
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.players import Players
from greenroom.actors.prompter import EVERY_S, Prompter
from greenroom.runtime.clock import LoopClock
from greenroom.runtime.plot import FOLLOWERS, heard_so_far, listeners, spoken_text
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.scenario import Member, Phase, Scenario
from greenroom.runtime.testkit import run
from greenroom.runtime.transcript import Cue, PhaseBegun, Transcript

NAMES = ("Ann", "Bob", "Cid", "Dan")


def begun(*cues: Cue, order: Any = "round_robin") -> Transcript:
    scenario = Scenario(
        name="tea",
        members=tuple(Member(name=name, agent=name.lower()) for name in NAMES),
        phases=(Phase(order=order, turns=9),),
    )
    return Transcript(scenario, [PhaseBegun(number=0, phase=0), *cues])


def cue(speaker: str = "Ann", number: int = 1, **more: Any) -> Cue:
    return Cue(number=number, phase=0, speaker=speaker, horizon=number, **more)


texts = st.text(alphabet="ab:. \n\tAn", max_size=60)


@given(st.sampled_from(["", "Ann: ", " **Ann:** ", "\n"]), texts, st.data())
def test_what_is_heard_so_far_is_how_the_line_begins(
    opening: str, text: str, data: st.DataObject
) -> None:
    said = opening + text
    line = spoken_text(said, "Ann")
    so_far = heard_so_far(cue(), said[: data.draw(st.integers(0, len(said)))])
    if so_far is not None:
        assert line.startswith(so_far.content)
        assert so_far.heard
        assert so_far.name == "Ann"


def test_of_words_only_whole_ones_are_heard() -> None:
    assert heard_so_far(cue(), "Ann: It rai") == ChatMessage("user", "It", "Ann", heard=True)
    assert heard_so_far(cue(), "It rains ") == ChatMessage("user", "It rains", "Ann", heard=True)
    assert heard_so_far(cue(), "Ann: It") is None
    whisper = heard_so_far(cue(to=("Bob",)), "Psst, you")
    assert whisper == ChatMessage("user", "Psst,", "Ann (in a whisper)", heard=True)


def test_the_next_two_follow_whom_it_reaches() -> None:
    ann = cue("Ann")
    assert listeners(begun(ann), ann) == ["Bob", "Cid"]
    dan = cue("Dan", to=("Cid",))
    assert listeners(begun(dan), dan) == ["Cid"]
    called = cue("Bob", purpose="call")
    assert listeners(begun(called), called) == []
    assert len(listeners(begun(ann), ann)) == FOLLOWERS


def test_nobody_follows_two_at_once() -> None:
    both = (cue("Ann", 1), cue("Bob", 2))
    assert listeners(begun(*both, order="free"), both[0]) == []


class Listening:
    """A house that notes what agents overhear, each of which takes a while to."""

    def __init__(self, busy_s: float) -> None:
        self.heard: list[tuple[str, str | None]] = []
        self._busy_s = busy_s

    async def spawn(self, request: Any) -> Any:
        return None

    async def overhear(self, namespace: str, agent: str, message: ChatMessage | None) -> None:
        self.heard.append((agent, message.content if message else None))
        await asyncio.sleep(self._busy_s)


async def listened(busy_s: float) -> list[tuple[str, str | None]]:
    """Ann says twenty words, one every tenth of a second; then Bob is asked, and it is over."""
    ann = cue("Ann")
    house: Any = Listening(busy_s)
    so_far = begun(ann)
    players = Players("", "s", so_far, house)
    prompter = Prompter(players, so_far, house, LoopClock(asyncio.get_running_loop()))
    said = ""
    for number in range(20):
        said += f"{number} "
        prompter.prompt(ann, said)
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    prompter.leave(cue("Bob", 2))
    await prompter.stop()
    return list(house.heard)


def test_each_is_told_at_its_own_pace_and_the_end_of_it() -> None:
    whole = " ".join(str(n) for n in range(20))
    for busy_s in (0.0, 1.0):
        heard = run(partial(listened, busy_s))
        bob = [text for agent, text in heard if agent == "bob"]
        cid = [text for agent, text in heard if agent == "cid"]
        assert bob[-1] == whole, "and nothing once it is asked"
        assert cid == [*bob, None]
        assert len(bob) <= 2 + 2.0 / (EVERY_S + busy_s)
        assert all(whole.startswith(text or "") for text in bob)
