"""Scene files: what is refused, and how that is told."""

import pytest

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.scenario import Member, Phase, Scenario
from greenroom.runtime.scene_file import checked, read_scenario

GOOD = """
name = "tea"
seed = 7
[[members]]
name = "Ann"
system = "You are Ann."
[[members]]
name = "Bob"
ephemeral = true
[[phases]]
name = "talk"
order = "moderated"
moderator = "Ann"
whispers = { Bob = "Say no." }
[[phases]]
vote = { question = "Tea?", options = ["yes", "no"], method = "ranked" }
"""


def test_a_scene_file() -> None:
    scene = read_scenario(GOOD)
    assert [m.agent for m in scene.members] == ["tea.Ann", "tea.Bob"]
    assert [scene.cast(p) for p in scene.script] == [("Bob",), ("Ann", "Bob")]
    assert [scene.turns(p) for p in scene.script] == [1, 2]
    assert not scene.endless


@pytest.mark.parametrize(
    ("old", "new", "param", "words"),
    [
        ("seed", "sed", None, "unknown key 'sed'"),
        ('order = "moderated"', 'order = "chaos"', "phases[0].order", "is none of"),
        ('moderator = "Ann"', "", "phases[0].moderator", "needs one"),
        ('moderator = "Ann"', 'moderator = "Eve"', "phases[0].moderator", "not a member"),
        ("Bob = ", "Eve = ", "phases[0].whispers", "'Eve' is not a member"),
        ('name = "Bob"', 'name = "Ann"', "members[1].name", "there twice"),
        ('name = "Bob"', 'name = "B b"', "members[1].name", "cannot contain"),
        ('name = "Bob"', 'name = "Bob"\nagent = "tea.Ann"', "members", "one agent"),
        ('"no"]', '"YES"]', "phases[1].vote.options", "told apart"),
        ('"yes", "no"', '"yes"', "phases[1].vote.options", "length >= 2"),
        ('name = "talk"', 'speakers = ["Ann"]', "phases[0].speakers", "turn_by_turn"),
        ("[[phases]]", "[[phases", None, "not TOML"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, param: str | None, words: str) -> None:
    with pytest.raises(InvalidRequest, match="(?i)" + words.replace("[", r"\[")) as refused:
        read_scenario(GOOD.replace(old, new, 1))
    assert refused.value.param == param


def test_a_scene_without_phases_has_no_end() -> None:
    text = 'name = "chat"\n[[members]]\nname = "Ann"\n'
    scene = read_scenario(text)
    assert scene.endless
    assert scene.turns(scene.script[0]) is None
    assert not read_scenario("max_turns = 4\n" + text).endless
    assert isinstance(scene, Scenario)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed", "sed", "unknown key 'sed': did you mean 'seed'?"),
        ("order =", "oder =", "phases[0]: unknown key 'oder': did you mean 'order'?"),
        ("ephemeral", "xyz", "members[1]: unknown key 'xyz': there are name, system, agent"),
        ('"moderated"', '"chaos"', "'chaos' is none of turn_by_turn, round_robin, broadcast"),
        ('"ranked"', '"loud"', "phases[1].vote.method: 'loud' is none of majority, ranked"),
        ('question = "Tea?", ', "", "phases[1].vote: the key 'question' is missing"),
        ('"Ann"\nwhispers', '"Anne"\nwhispers', "is not a member: did you mean 'Ann'?"),
        ('name = "Bob"', 'name = "ANN"', "'ANN' and 'Ann' differ only in case"),
        ('name = "talk"', 'cast = ["Bob", "Bob"]', "phases[0].cast: 'Bob' is there twice"),
        ("ephemeral = true", 'overflow = "cut"', "'cut' is none of error, drop_oldest, summarize"),
        ("seed = 7", "at_once = 999", "at_once: Expected `int` <= 256"),
        ("seed = 7", "seed = -7", "seed: Expected `int` >= 0"),
        ("seed = 7", 'seed = "7"', "seed: Expected `int | null`, got `str`"),
        ("[[phases]]", "[[phases", "not TOML"),
        ("seed = 7", "x = " + "[" * 5000, "not TOML"),
    ],
)
def test_what_could_be_meant_is_told(old: str, new: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_scenario(GOOD.replace(old, new, 1))
    assert words in str(refused.value)


def test_names_are_the_same_however_they_are_composed() -> None:
    composed, apart = "Zo\u00eb", "Zoe\u0308"
    text = (
        GOOD.replace("Bob", apart, 1).replace("Bob =", f'"{composed}" =').replace("Ann", "अनुराधा")
    )
    scene = read_scenario(text)
    assert scene.names == ("अनुराधा", composed)
    assert scene.script[0].whispers == {composed: "Say no."}
    assert scene.member(apart).name == composed


@pytest.mark.parametrize(
    ("scenario", "param"),
    [
        (Scenario(name="s", members=()), "members"),
        (Scenario(name="s", members=(Member(name="a"),), at_once=0), "at_once"),
        (
            Scenario(name="s", members=(Member(name="a"),), phases=(Phase(turns=0),)),
            "phases[0].turns",
        ),
        (Scenario(name="s", members=(Member(name="a"),), temperature=9.0), "temperature"),
        (Scenario(name="s/t", members=(Member(name="a"),)), "name"),
        (Scenario(name="s", members=(Member(name="a\u200db"),)), "members[0].name"),
    ],
)
def test_what_is_made_in_python_is_held_to_the_same_bounds(scenario: Scenario, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked(scenario)
    assert refused.value.param == param
