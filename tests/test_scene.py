"""Scenes with agents that have no model: orders, whispers, votes and crashes, in virtual time."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.actors.interjection import line_of
from greenroom.actors.scene_messages import Interrupted, Speaking, Tell, Token
from greenroom.runtime.constraint import JsonAnswer
from greenroom.runtime.errors import (
    ActorStopped,
    Conflict,
    GreenroomError,
    InvalidRequest,
    NotFound,
    StageFailed,
)
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.scenario import Member, Order, Phase, Scenario, Vote
from greenroom.runtime.scene_file import checked
from greenroom.runtime.state import State
from greenroom.runtime.testkit import run
from greenroom.runtime.transcript import (
    Call,
    Cast,
    Counted,
    Cue,
    Ended,
    Entry,
    Line,
    PhaseBegun,
    Silence,
    Transcript,
    reaches,
)
from tests.repertory import FATES, Evening, Repertory, World, all_of

NAMES = ("ann", "bob", "cid", "dot")
OPTIONS = ("tea", "coffee", "water")


def answer(agent: str, prompt: Sequence[ChatMessage], number: int) -> str:
    """A text of its own; a ballot that is sometimes none, a call for the one who is first."""
    last = prompt[-1].content
    if "Who speaks next" in last:
        calls = ("I do not know", "dot, of course", "It is cid's turn")
        return f"{calls[number % 3]} ({number})"
    if "The options are" in last:
        return f"{('tea, then water', 'Coffee!', 'no idea')[number % 3]} #{number}"
    return f"utterance {number} of {agent}"


def scenario(*phases: Phase, names: Sequence[str] = NAMES[:3], **more: Any) -> Scenario:
    members = tuple(Member(name=name, agent=name) for name in names)
    return checked(Scenario(name="s", members=members, phases=phases, **more))


def entries_of(world: World) -> list[Entry]:
    (entries,) = world.entries.values()
    return entries


def lines_of(world: World) -> list[Line]:
    return [e for e in entries_of(world) if isinstance(e, Line)]


def perform(world: World, plan: Scenario, **options: Any) -> Any:
    """One evening: the scene is made and goes on as far as asked; its events."""
    house = Repertory(world, answer, options.pop("fates", ()))
    seed = options.pop("seed", None)

    async def main() -> Any:
        evening = Evening(house)
        async with evening.system:
            await evening.scenes.create("", plan)
            return await all_of(await evening.scenes.perform("", "s", **options))

    return run(main, seed=seed)


def speakers(world: World) -> list[str | None]:
    return [line.speaker for line in lines_of(world) if line.speaker]


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (Phase(turns=5), ["ann", "bob", "cid", "ann", "bob"]),
        (
            Phase(order="turn_by_turn", speakers=("bob", "ann", "bob"), turns=4),
            ["bob", "ann", "bob", "bob"],
        ),
        (Phase(order="broadcast", turns=5), ["ann", "bob", "cid", "ann", "bob"]),
        (Phase(cast=("cid", "ann")), ["ann", "cid"]),
    ],
)
def test_orders(phase: Phase, expected: list[str]) -> None:
    world = World()
    perform(world, scenario(phase))
    assert speakers(world) == expected
    assert isinstance(entries_of(world)[-1], Ended)


def test_round_robin_goes_on_where_the_last_phase_stopped() -> None:
    world = World()
    perform(world, scenario(Phase(turns=2), Phase(turns=2)))
    assert speakers(world) == ["ann", "bob", "cid", "ann"]


def test_in_a_broadcast_nobody_hears_the_others_before_all_have_spoken() -> None:
    world = World()
    perform(world, scenario(Phase(order="broadcast", opening="Tea or coffee?", turns=6)))
    first, second = world.prompts[:3], world.prompts[3:]
    for _, prompt in first:
        assert [m.content for m in prompt] == ["Tea or coffee?"]
    for agent, prompt in second:
        assert len(prompt) == 4, "the question, its own answer, two others'"
        assert not any(m.heard and m.name == agent for m in prompt)


def test_the_moderator_calls_and_whom_it_does_not_name_is_next_in_the_circle() -> None:
    world = World()
    phase = Phase(order="moderated", moderator="dot", turns=4)
    perform(world, scenario(phase, names=NAMES))
    calls = [e for e in entries_of(world) if isinstance(e, Call)]
    assert [c.called for c in calls] == speakers(world)
    assert {c.understood for c in calls} == {True, False}
    assert "dot" not in speakers(world)


def test_free_members_speak_two_at_once_and_a_round_robin_one_by_one() -> None:
    for order, most in (("free", 2), ("round_robin", 1)):
        house = Repertory(World(), answer)

        async def main(order: Any = order, house: Repertory = house) -> None:
            evening = Evening(house)
            async with evening.system:
                await evening.scenes.create("", scenario(Phase(order=order, turns=8)))
                await all_of(await evening.scenes.perform("", "s"))

        run(main)
        assert house.most_talking == most
        turns = Counter(speakers(house.world))
        assert sum(turns.values()) == 8
        assert max(turns.values()) - min(turns.values()) <= 2


def test_phases_openings_whispers_and_audiences_reach_whom_they_are_for() -> None:
    world = World()
    perform(
        world,
        scenario(
            Phase(name="one", opening="It is night.", whispers={"bob": "You are the wolf."}),
            Phase(name="two", order="turn_by_turn", speakers=("bob",), audience=("cid",)),
            Phase(name="three", order="turn_by_turn", speakers=("ann", "cid")),
        ),
    )
    text = {name: " ".join(m.content for m in world.memories[name]) for name in NAMES[:3]}
    assert all("It is night." in text[name] for name in text)
    assert [name for name in text if "the wolf" in text[name]] == ["bob"]
    (secret,) = (x.text for x in lines_of(world) if x.speaker == "bob" and x.to)
    assert [name for name in text if secret in text[name]] == ["bob", "cid"]


def test_an_ephemeral_member_knows_its_phase_only() -> None:
    members = (Member(name="ann", agent="ann"), Member(name="eph", agent="eph", ephemeral=True))
    plan = Scenario(name="s", members=members, phases=(Phase(turns=4), Phase(turns=4)))
    world = World()
    perform(world, checked(plan))
    of_phase = [{x.text for x in lines_of(world) if x.phase == n} for n in (0, 1)]
    known = {m.content for m in world.memories["eph~2"]}
    assert known & of_phase[1]
    assert not known & of_phase[0]
    assert world.forgotten == ["eph~1"]
    assert {m.content for m in world.memories["ann"]} >= of_phase[0]


def test_stop_words_end_a_phase_or_the_scene() -> None:
    world = World()
    perform(world, scenario(Phase(turns=9, stop_words=("utterance 2 ",)), Phase(turns=1)))
    assert len(speakers(world)) == 3
    world = World()
    perform(world, scenario(Phase(turns=9), Phase(turns=9), stop_words=("utterance 2 ",)))
    assert len(speakers(world)) == 2
    end = entries_of(world)[-1]
    assert isinstance(end, Ended)
    assert end.reason == "stop_word"
    world = World()
    perform(world, scenario(Phase(turns=9), max_turns=3))
    assert len(speakers(world)) == 3


def test_a_scene_is_performed_step_by_step_watched_and_told() -> None:
    house = Repertory(World(), answer)

    async def main() -> None:
        evening = Evening(house)
        scenes = evening.scenes
        async with evening.system:
            await scenes.create("", scenario())
            watched = await scenes.watch("", "s")
            events = await all_of(await scenes.perform("", "s", turns=1))
            assert [type(e) for e in events[2:5]] == [Speaking, Token, Token]
            said = "".join(e.text for e in events if isinstance(e, Token))
            assert said.strip() == lines_of(house.world)[0].text
            await scenes.tell("", "s", Tell("Where is my hat?", "Guest"))
            await scenes.tell("", "s", Tell("Only for you.", None, ("cid",)))
            await all_of(await scenes.perform("", "s", speaker="cid"))
            await all_of(await scenes.perform("", "s", turns=1))
            assert speakers(house.world) == ["ann", "Guest", "cid", "ann"]
            info = await scenes.info("", "s")
            assert (info.turns, info.lines, info.performing, info.ended) == (3, 5, False, None)
            with pytest.raises(InvalidRequest, match="no end of its own"):
                await all_of(await scenes.perform("", "s"))
            with pytest.raises(InvalidRequest, match="is a member"):
                await scenes.tell("", "s", Tell("I am Ann.", "ann"))
            with pytest.raises(NotFound):
                await scenes.info("", "t")
            watched.cancel()

    run(main)
    _, prompt = house.world.prompts[1]
    assert [(m.name, m.content) for m in prompt][-2:] == [
        ("Guest", "Where is my hat?"),
        ("Narrator (in a whisper)", "Only for you."),
    ]


def test_one_performs_others_may_speak_up_and_whoever_leaves_stops_it() -> None:
    house = Repertory(World(), answer)

    async def main() -> None:
        evening = Evening(house)
        scenes = evening.scenes
        async with evening.system:
            await scenes.create("", scenario(Phase(turns=6)))
            async with await scenes.perform("", "s") as performing:
                await anext(performing)
                with pytest.raises(Conflict, match="being performed"):
                    await all_of(await scenes.perform("", "s"))
                line = await scenes.tell("", "s", Tell("A guest comes in.", "Guest"))
                assert (await scenes.info("", "s")).performing
                async for event in performing:
                    if isinstance(event, Line) and event.speaker == "bob":
                        break
            await asyncio.sleep(1)
            assert not (await scenes.info("", "s")).performing
            await all_of(await scenes.perform("", "s"))
            assert line in entries_of(house.world)
            await scenes.delete("", "s")
            assert await scenes.list("") == []

    run(main)
    heard = [m.content for m in house.world.memories["cid"]]
    assert heard.count("A guest comes in.") == 1


def test_votes_are_secret_counted_and_announced() -> None:
    world = World()
    vote = Vote(question="What shall we drink?", options=OPTIONS)
    perform(world, scenario(Phase(turns=1, vote=vote), Phase(turns=1), names=NAMES))
    casts = [e for e in entries_of(world) if isinstance(e, Cast)]
    (counted,) = (e.tally for e in entries_of(world) if isinstance(e, Counted))
    assert sorted(c.ballot.voter for c in casts) == sorted(NAMES)
    assert counted.num_valid + counted.num_invalid + counted.num_absent == 4
    assert sum(counted.points.values()) == counted.num_valid
    for cast in casts:
        for name in NAMES:
            knows = any(m.content == cast.ballot.text for m in world.memories[name])
            assert knows == (name == cast.ballot.voter)
    announced = [x for x in lines_of(world) if x.text.startswith("The vote on")]
    assert len(announced) == 1


def test_a_vote_by_hand_counts_who_cannot_answer_as_absent() -> None:
    house = Repertory(World(), answer, ["refused"])

    async def main() -> None:
        evening = Evening(house)
        async with evening.system:
            await evening.scenes.create("", scenario())
            vote = Vote(question="Tea?", options=OPTIONS, method="ranked", voters=("ann", "bob"))
            events = await all_of(await evening.scenes.vote("", "s", vote))
            (counted,) = (e.tally for e in events if isinstance(e, Counted))
            assert counted.num_absent == 1
            refused = await evening.scenes.vote("", "s", Vote(question="?", options=("a", " A ")))
            with pytest.raises(InvalidRequest, match="told apart"):
                await all_of(refused)

    run(main)


def test_a_turn_that_fails_is_taken_again_and_a_stage_that_stays_down_stops_the_scene() -> None:
    world = World()
    events = perform(world, scenario(Phase(turns=3)), fates=["gpu", None, "crash_late", "full"])
    assert [e.reason for e in events if isinstance(e, Interrupted)] == [
        "StageFailed", "ActorFailed", "MailboxFull",
    ]  # fmt: skip
    assert [x.text for x in lines_of(world)] == [
        f"utterance {n} of {name}" for n, name in enumerate(NAMES[:3], 1)
    ]
    world = World()
    with pytest.raises(StageFailed):
        perform(world, scenario(Phase(turns=3)), fates=["gpu"] * 5)
    perform(world, scenario(Phase(turns=3)))
    assert speakers(world) == ["ann", "bob", "cid"]
    world = World()
    perform(world, scenario(Phase(turns=3)), fates=["crash"] * 4 + ["crash_late"])
    assert speakers(world) == ["ann", "bob", "cid"], "it had answered before it crashed"
    world = World()
    perform(world, scenario(Phase(turns=3)), fates=["crash"] * 5)
    assert speakers(world) == ["bob", "cid"]
    assert [e.reason for e in entries_of(world) if isinstance(e, Silence)] == ["failed"]


def test_when_all_is_over_a_vote_can_still_be_held() -> None:
    house = Repertory(World(), answer)

    async def main() -> None:
        evening = Evening(house)
        async with evening.system:
            await evening.scenes.create("", scenario(Phase(turns=1)))
            await all_of(await evening.scenes.perform("", "s"))
            vote = Vote(question="Tea?", options=OPTIONS, method="ranked")
            tally = await evening.scenes.tally("", "s", vote)
            assert tally.num_valid + tally.num_invalid == 3
            assert await all_of(await evening.scenes.perform("", "s")) == []

    run(main)
    (held,) = (e for e in house.requests if e.constraint is not None and e.agent == "bob")
    assert held.constraint == JsonAnswer(
        {"type": "array", "items": {"enum": list(OPTIONS)}, "minItems": 3, "maxItems": 3}, "choice"
    )


def test_a_model_that_cannot_be_held_to_the_options_is_asked_freely() -> None:
    house = Repertory(World(), answer, ["bound"] * 3)

    async def main() -> None:
        evening = Evening(house)
        async with evening.system:
            await evening.scenes.create("", scenario())
            tally = await evening.scenes.tally("", "s", Vote(question="Tea?", options=OPTIONS))
            assert tally.num_absent == 0

    run(main)
    assert [r.constraint is None for r in house.requests] == [False] * 3 + [True] * 3


def test_two_scenes_share_an_agent_who_hears_and_says_everything_once() -> None:
    house = Repertory(World(), answer)
    plans = [
        checked(Scenario(name=name, members=members, phases=(Phase(turns=8),)))
        for name, members in (
            ("one", (Member(name="ann", agent="ann"), Member(name="bob", agent="bob"))),
            ("two", (Member(name="bob", agent="bob"), Member(name="cid", agent="cid"))),
        )
    ]

    async def main() -> None:
        evening = Evening(house)
        async with evening.system:
            for plan in plans:
                await evening.scenes.create("", plan)
            channels = [await evening.scenes.perform("", plan.name) for plan in plans]
            await asyncio.gather(*(all_of(channel) for channel in channels))

    run(main)
    world = house.world
    lines = [e for entries in world.entries.values() for e in entries if isinstance(e, Line)]
    assert len(lines) == 16
    keys = [m.key for m in world.memories["bob"] if m.key]
    assert len(set(keys)) == len(keys)
    known = {m.content for m in world.memories["bob"]}
    last = max(x.number for x in lines if x.speaker == "bob")
    assert {x.text for x in lines if x.speaker == "bob" or x.number < last - 4} <= known


def test_who_is_forgotten_in_mid_scene_is_itself_again_and_remembers_from_there() -> None:
    house = Repertory(World(), answer)

    async def main() -> None:
        evening = Evening(house)
        scenes = evening.scenes
        async with evening.system:
            members = tuple(Member(name=n, agent=n, system=f"You are {n}.") for n in NAMES[:3])
            await scenes.create("", checked(Scenario(name="s", members=members)))
            async with await scenes.perform("", "s", turns=9) as events:
                async for event in events:
                    if isinstance(event, Line) and event.speaker == "bob":
                        await house.forget("", "bob")
                        house.spawned.clear()
                        break
                _ = [event async for event in events]

    run(main)
    assert next(r.system for r in house.spawned if r.name == "bob") == "You are bob."
    assert speakers(house.world) == [*NAMES[:3]] * 3
    known = [m.content for m in house.world.memories["bob"]]
    assert "utterance 1 of ann" not in known
    assert {f"utterance {n} of {NAMES[(n - 1) % 3]}" for n in range(3, 9)} <= set(known)


def test_a_scene_that_is_deleted_while_it_runs_stops_and_its_name_is_free() -> None:
    house = Repertory(World(), answer)

    async def main() -> None:
        evening = Evening(house)
        scenes = evening.scenes
        async with evening.system:
            await scenes.create("", scenario())
            performing = await scenes.perform("", "s", turns=99)
            watching = await scenes.watch("", "s")
            await anext(performing)
            await scenes.delete("", "s")
            with pytest.raises(ActorStopped):
                await all_of(performing)
            assert not [e for e in await all_of(watching) if isinstance(e, Ended)]
            assert house.talking == 0
            await scenes.create("", scenario(max_turns=1))
            assert (await scenes.info("", "s")).turns == 0
            await all_of(await scenes.perform("", "s"))

    run(main)


def test_who_watches_a_scene_that_rests_sees_it_go_on_hours_later() -> None:
    house = Repertory(World(), answer)

    async def main() -> None:
        evening = Evening(house)
        async with evening.system:
            await evening.scenes.create("", scenario())
            async with await evening.scenes.watch("", "s") as watching:
                await asyncio.sleep(10_000)
                await all_of(await evening.scenes.perform("", "s", turns=1))
                assert isinstance(await anext(watching), PhaseBegun)
            theatre = evening.system.get("theatre/s")
            assert theatre is not None
            await asyncio.sleep(10_000)
            assert theatre.cell.state is State.PASSIVE, "nobody watches any more"

    run(main)


def test_a_transcript_of_a_thousand_lines() -> None:
    world = World()
    perform(world, scenario(Phase(turns=1000), names=NAMES[:2]))
    assert speakers(world) == [*NAMES[:2]] * 500
    assert len(Transcript(scenario(names=NAMES[:2]), entries_of(world)).lines) == 1000


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (Tell("Hi.", "Zoe\u0308"), "is_member"),
        (Tell("Hi.", "ZO\u00cb"), "is_member"),
        (Tell("Hi.", "Eve\nzo\u00eb"), "invalid_name"),
        (Tell("Hi.", " "), "invalid_name"),
        (Tell("Hi.", None, ()), "empty_array"),
        (Tell("Hi.", None, ("eve",)), "no_such_member"),
        (Tell(" \n"), "empty_string"),
        (Tell("x" * 65_537), "string_above_max_length"),
    ],
)
def test_nobody_speaks_for_a_member_or_to_nobody(told: Tell, code: str) -> None:
    so_far = Transcript(scenario(names=("zo\u00eb", "bob")))
    with pytest.raises(InvalidRequest) as refused:
        line_of(so_far, told)
    assert refused.value.code == code


def test_whispers_find_their_member_however_its_name_is_composed() -> None:
    line = line_of(
        Transcript(scenario(names=("zo\u00eb", "bob"))), Tell("Psst.", None, ("zoe\u0308",))
    )
    assert line.to == ("zo\u00eb",)


# -- whatever happens


def plans() -> st.SearchStrategy[Scenario]:
    names = st.sampled_from([NAMES[:2], NAMES[:3], NAMES])

    def phases(of: Sequence[str], order: str) -> st.SearchStrategy[Phase]:
        some = st.none() | st.lists(st.sampled_from(of), min_size=1, unique=True).map(tuple)
        speakers = st.none() | st.lists(st.sampled_from(of), min_size=1, max_size=4).map(tuple)
        vote = st.builds(
            Vote,
            question=st.just("What shall we drink?"),
            options=st.just(OPTIONS),
            method=st.sampled_from(["majority", "ranked"]),
            voters=some,
        )
        return st.builds(
            Phase,
            order=st.just(order),
            cast=some,
            speakers=speakers if order == "turn_by_turn" else st.none(),
            turns=st.integers(1, 6),
            moderator=st.sampled_from(of),
            opening=st.sampled_from(["", "The curtain rises."]),
            whispers=st.lists(st.sampled_from(of), max_size=2).map(
                lambda names: {name: f"A secret for {name}." for name in names}
            ),
            audience=some,
            vote=st.none() | vote,
        )

    def scenarios(of: Sequence[str]) -> st.SearchStrategy[Scenario]:
        each = st.sampled_from(get_args(Order)).flatmap(partial(phases, of))
        ephemeral = st.none() | st.sampled_from(of)
        return st.builds(
            partial(scenario_of, of), st.lists(each, min_size=1, max_size=3), ephemeral
        )

    return names.flatmap(scenarios)


def scenario_of(names: Sequence[str], phases: Sequence[Phase], ephemeral: str | None) -> Scenario:
    members = tuple(Member(name=n, agent=n, ephemeral=n == ephemeral) for n in names)
    return checked(Scenario(name="s", members=members, phases=tuple(phases)))


SAYINGS = st.lists(
    st.tuples(st.floats(0.1, 12.0), st.sampled_from([None, ("ann",), ("ann", "bob")])), max_size=3
)
"""What a guest says: after so many seconds, and to whom."""


whatever = given(
    plan=plans(),
    fates=st.lists(st.none() | st.sampled_from(FATES), max_size=12),
    deaths=st.lists(st.floats(0.1, 15.0), max_size=4),
    sayings=SAYINGS,
    seed=st.integers(0, 2**16),
)


@settings(max_examples=100, deadline=None)
@whatever
def test_whatever_fails_nothing_is_lost_or_said_twice_and_whispers_stay_secret(
    plan: Scenario,
    fates: list[str | None],
    deaths: list[float],
    sayings: list[tuple[float, tuple[str, ...] | None]],
    seed: int,
) -> None:
    survive(plan, fates, deaths, sayings, seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=1500)
@whatever
def test_much_more_of_whatever_fails(
    plan: Scenario,
    fates: list[str | None],
    deaths: list[float],
    sayings: list[tuple[float, tuple[str, ...] | None]],
    seed: int,
) -> None:
    survive(plan, fates, deaths, sayings, seed)


def survive(
    plan: Scenario,
    fates: Sequence[str | None],
    deaths: Sequence[float],
    sayings: Sequence[tuple[float, tuple[str, ...] | None]],
    seed: int,
) -> None:
    """Perform a scene in as many processes as die, and one that does not."""
    world = World()
    left = list(fates)
    said: list[Line] = []
    for number, death in enumerate([*deaths, None]):
        house = Repertory(world, answer, left)
        guest = [
            (after, Tell(f"guest {number}.{n}", "Eve", to)) for n, (after, to) in enumerate(sayings)
        ]
        run(partial(_evening, house, plan, death, guest, said), seed=seed)
        left = house.fates
    check(world, plan, has_crashed="crash" in fates or bool(deaths))
    assert all(lines_of(world).count(line) == 1 for line in said), "what was told is there, once"


async def _evening(
    house: Repertory,
    plan: Scenario,
    death: float | None,
    guest: Sequence[tuple[float, Tell]],
    said: list[Line],
) -> None:
    """Perform to the end, again and again where something stops it, or until the power is cut.

    What a guest was told to have said is in ``said``.
    """
    evening = Evening(house)

    async def speak_up(after: float, told: Tell) -> None:
        await asyncio.sleep(after)
        with contextlib.suppress(GreenroomError):
            said.append(await evening.scenes.tell("", "s", told))

    talking = [asyncio.ensure_future(speak_up(*each)) for each in guest]
    async with asyncio.timeout(None) as limit:
        if death is not None:
            asyncio.get_running_loop().call_later(death, evening.die)
            limit.reschedule(asyncio.get_running_loop().time() + death)
        try:
            await evening.scenes.create("", plan)
            for _ in range(9):
                try:
                    await all_of(await evening.scenes.perform("", "s"))
                    break
                except GreenroomError:
                    pass
        except asyncio.CancelledError:
            if death is None:
                raise
    for task in talking:
        task.cancel()
    await asyncio.gather(*talking, return_exceptions=True)
    await evening.system.shutdown(1.0)


def check(world: World, plan: Scenario, *, has_crashed: bool) -> None:
    (uid,) = world.entries
    entries = entries_of(world)
    assert [e.number for e in entries] == list(range(len(entries)))
    so_far = Transcript(plan, entries)
    assert so_far.ended is not None
    ends = [e for e in entries if isinstance(e, Line | Silence | Call | Cast)]
    closed = [e.cue for e in ends if e.cue is not None]
    cues = {e.number: e for e in entries if isinstance(e, Cue)}
    assert sorted(closed) == sorted(cues), "every cue has one end"
    for member in plan.members:
        if member.ephemeral:
            _check_ephemeral(world, uid, so_far, member.name)
        else:
            _check_memory(world, uid, so_far, cues, member.name, in_order=not has_crashed)
        _check_secrets(world, so_far, member.name)
    _check_votes(entries)
    _check_orders(plan, entries)


def _check_memory(
    world: World,
    uid: str,
    so_far: Transcript,
    cues: dict[int, Cue],
    name: str,
    *,
    in_order: bool,
) -> None:
    memory = world.memories[name]
    keys = [m.key for m in memory if m.key is not None]
    assert len(set(keys)) == len(keys), "nothing is heard or said twice"
    said = {m.key: m.content for m in memory if m.role == "assistant"}
    for entry in so_far.entries:
        match entry:
            case Line(speaker=speaker, cue=cue) if speaker == name and cue is not None:
                assert said.pop(f"{uid}.{cue}") == entry.text
            case Call(cue=cue) if cues[cue].speaker == name and entry.text is not None:
                assert said.pop(f"{uid}.{cue}") == entry.text
            case Cast(cue=cue) if entry.ballot.voter == name and entry.ballot.text is not None:
                assert said.pop(f"{uid}.{cue}") == entry.ballot.text
            case _:
                pass
    assert not said, "what was said is in the transcript"
    may_know = {f"{uid}.{x.number}" for x in so_far.lines if reaches(x, name)}
    heard = [m.key for m in memory if m.heard and m.key is not None]
    assert set(heard) <= may_know
    last = max((c.horizon for c in cues.values() if c.speaker == name and c.number in
                {e.cue for e in so_far.entries if isinstance(e, Line)}), default=0)  # fmt: skip
    must = [f"{uid}.{x.number}" for x in so_far.lines if reaches(x, name) and x.number < last]
    assert set(must) <= set(heard), "nothing is lost"
    if in_order:
        assert heard == sorted(heard, key=lambda key: int(str(key).split(".")[1]))


def _check_secrets(world: World, so_far: Transcript, name: str) -> None:
    secrets = {x.text for x in so_far.lines if x.to is not None}
    secrets -= {x.text for x in so_far.as_heard_by(name)}
    for agent, prompt in world.prompts:
        if agent.split("~")[0] == name:
            assert not secrets & {m.content for m in prompt}, "a whisper is for its hearers only"
    for agent, memory in world.memories.items():
        if agent.split("~")[0] == name:
            assert not secrets & {m.content for m in memory}


def _check_ephemeral(world: World, uid: str, so_far: Transcript, name: str) -> None:
    """It knows its phase, and who it was in the phases before is gone."""
    last = so_far.phase
    assert [a for a in world.memories if a.startswith(f"{name}~")] == [f"{name}~{last + 1}"]
    keys = {m.key for m in world.memories[f"{name}~{last + 1}"] if m.key is not None}
    of_phase = {f"{uid}.{e.number}" for e in so_far.entries if e.phase == last}
    assert keys <= of_phase


def _check_votes(entries: list[Entry]) -> None:
    for counted in (e for e in entries if isinstance(e, Counted)):
        ballots = [e.ballot for e in entries if isinstance(e, Cast) and e.poll == counted.poll]
        result = counted.tally
        assert len({b.voter for b in ballots}) == len(ballots)
        assert result.num_valid + result.num_invalid + result.num_absent == len(ballots)
        if result.method == "majority":
            assert sum(result.points.values()) == result.num_valid
        else:
            expected = sum(sum(range(2, 2 - len(b.ranking), -1)) for b in ballots if b.ranking)
            assert sum(result.points.values()) == expected


def _check_orders(plan: Scenario, entries: list[Entry]) -> None:
    everybody: list[str] = []
    for n, phase in enumerate(plan.script):
        cued = [
            e.speaker
            for e in entries
            if isinstance(e, Cue) and e.phase == n and e.purpose == "speak"
        ]
        cast = phase.speakers or plan.cast(phase)
        assert len(cued) == plan.turns(phase)
        match phase.order:
            case "turn_by_turn" | "broadcast":
                assert cued == [cast[i % len(cast)] for i in range(len(cued))]
            case "round_robin":
                around = [name for name in plan.names if name in cast]
                at = around.index(cued[0])
                assert cued == [around[(at + i) % len(around)] for i in range(len(cued))]
            case "free":
                turns = [cued.count(name) for name in cast]
                assert max(turns) - min(turns) <= 2
            case "moderated":
                calls = [e.called for e in entries if isinstance(e, Call) and e.phase == n]
                assert calls == cued
        everybody += cued
