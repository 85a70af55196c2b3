"""Scene files: what is refused, and how that is told."""

import pytest

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.scenario import Scenario, read_scenario

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
        ("seed", "sed", None, "unknown field `sed`"),
        ('order = "moderated"', 'order = "chaos"', "phases[0].order", "Invalid enum value"),
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
