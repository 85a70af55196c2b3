"""Scenes as they are written, in TOML or by a caller: read, checked, and told what is wrong. Pure.

Names are compared as actors' names are, in NFC; two that differ only in case are too alike for
models and people to tell apart.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_args
from unicodedata import normalize

import msgspec

from greenroom.runtime.agent_records import Overflow
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.names import validate_name
from greenroom.runtime.scenario import Member, Method, Order, Phase, Scenario, Vote

S = TypeVar("S", bound=msgspec.Struct)
# msgspec tells the path of a bad value only inside its message.
_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_CHOICES = {
    "order": get_args(Order),
    "method": get_args(Method),
    "overflow": get_args(Overflow),
}


def read_scenario(text: str) -> Scenario:
    """A scene file's text. Raises InvalidRequest, which names the key and what is wrong with it."""
    try:
        scenario = msgspec.toml.decode(text, type=Scenario)
    except msgspec.ValidationError as error:
        raise _explained(error) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRequest(f"not TOML: {error}", code="invalid_toml") from None
    except RecursionError:
        raise InvalidRequest("not TOML: nested too deeply", code="invalid_toml") from None
    return checked(scenario)


def scenario_of(name: str, members: Sequence[Member], options: Mapping[str, object]) -> Scenario:
    """The scenario of these members, checked; ``options`` are its other fields."""
    fields: dict[str, Any] = dict(options)
    return checked(Scenario(name=name, members=tuple(members), **fields))


def checked(scenario: Scenario) -> Scenario:
    """The scenario with agents filled in. Raises InvalidRequest that names the field at fault."""
    scenario = _validated(scenario, Scenario)
    name = _legal(scenario.name, "name")
    members: list[Member] = []
    for n, member in enumerate(scenario.members):
        own = _legal(member.name, f"members[{n}].name")
        for other in (m.name for m in members if m.name.casefold() == own.casefold()):
            what = "is there twice" if other == own else f"and {other!r} differ only in case"
            raise _wrong(f"members[{n}].name", f"{own!r} {what}")
        agent = _legal(member.agent or f"{name}.{own}", f"members[{n}].agent")
        members.append(msgspec.structs.replace(member, name=own, agent=agent))
    agents = [m.agent for m in members]
    if len(set(agents)) < len(agents):
        raise _wrong("members", "two members cannot be one agent")
    scenario = msgspec.structs.replace(
        scenario,
        name=name,
        members=tuple(members),
        moderator=_spelled(scenario.moderator),
        phases=tuple(_spelled_phase(phase) for phase in scenario.phases),
    )
    for n, phase in enumerate(scenario.script):
        _check_phase(scenario, phase, f"phases[{n}]." if scenario.phases else "")
    return scenario


def checked_vote(vote: Vote, names: Iterable[str], path: str = "") -> Vote:
    """The vote with names as the members spell them.

    Raises InvalidRequest unless voters are members and options can be told apart.
    """
    vote = _spelled_vote(_validated(vote, Vote, path))
    _known(vote.voters, names, f"{path}voters")
    if vote.voters is not None and not vote.voters:
        raise _wrong(f"{path}voters", "nobody would vote")
    plain = [" ".join(o.casefold().split()) for o in vote.options]
    if len(set(plain)) < len(plain) or not all(plain):
        raise _wrong(f"{path}options", "the options cannot be told apart")
    return vote


def _check_phase(scenario: Scenario, phase: Phase, path: str) -> None:
    names = scenario.names
    for field in ("cast", "audience"):
        _known(getattr(phase, field), names, path + field)
    _known(phase.speakers, names, f"{path}speakers", once=False)
    _known(phase.whispers, names, f"{path}whispers")
    if not scenario.cast(phase):
        raise _wrong(f"{path}cast", "nobody would speak")
    if phase.order == "moderated" and phase.moderator is None:
        raise _wrong(f"{path}moderator", "a moderated phase needs one: name a member")
    if phase.moderator is not None:
        _known((phase.moderator,), names, f"{path}moderator")
    if phase.speakers is not None and phase.order != "turn_by_turn":
        raise _wrong(f"{path}speakers", "only the order turn_by_turn follows a list of speakers")
    if phase.vote is not None:
        checked_vote(phase.vote, names, f"{path}vote.")


def _known(
    given: Iterable[str] | None, names: Iterable[str], path: str, *, once: bool = True
) -> None:
    known = tuple(names)
    seen: set[str] = set()
    for name in given or ():
        if name not in known:
            hint = _near(name, known)
            raise _wrong(path, f"{name!r} is not a member{hint} (there are {', '.join(known)})")
        if once and name in seen:
            raise _wrong(path, f"{name!r} is there twice")
        seen.add(name)


# -- spelling


def _legal(name: str, path: str) -> str:
    try:
        return validate_name(name)
    except InvalidRequest as error:
        raise _wrong(path, str(error)) from None


def _spelled_phase(phase: Phase) -> Phase:
    return msgspec.structs.replace(
        phase,
        cast=_all_spelled(phase.cast),
        speakers=_all_spelled(phase.speakers),
        audience=_all_spelled(phase.audience),
        moderator=_spelled(phase.moderator),
        whispers={normalize("NFC", name): text for name, text in phase.whispers.items()},
        vote=phase.vote and _spelled_vote(phase.vote),
    )


def _spelled_vote(vote: Vote) -> Vote:
    return msgspec.structs.replace(vote, voters=_all_spelled(vote.voters))


def _spelled(name: str | None) -> str | None:
    return None if name is None else normalize("NFC", name)


def _all_spelled(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(normalize("NFC", name) for name in names)


# -- what is wrong


def _validated(given: S, kind: type[S], path: str = "") -> S:
    """The same. What was made in Python has not been held to its types' bounds yet."""
    try:
        return msgspec.convert(msgspec.to_builtins(given), kind)
    except msgspec.ValidationError as error:
        raise _explained(error, path) from None


def _explained(error: msgspec.ValidationError, above: str = "") -> InvalidRequest:
    """What msgspec says, with the key, and what could be meant."""
    match = _PATH.match(str(error))
    assert match is not None
    what, path = match["what"], above + (match["path"] or "")
    if unknown := re.search(r"unknown field `(.+)`", what):
        fields = _fields_at(path.rstrip("."))
        hint = _near(unknown[1], fields) or f": there are {', '.join(fields)}"
        what = f"unknown key {unknown[1]!r}{hint}"
    elif missing := re.search(r"missing required field `(.+)`", what):
        what = f"the key {missing[1]!r} is missing"
    elif what.startswith("Invalid enum value"):
        choices = _CHOICES[path.rpartition(".")[2]]
        what = f"{what.removeprefix('Invalid enum value ')} is none of {', '.join(choices)}"
    return _wrong(path.rstrip("."), what)


def _fields_at(path: str) -> tuple[str, ...]:
    """The keys that there are where a path leads."""
    last = path.rpartition(".")[2].partition("[")[0]
    kinds: dict[str, Any] = {"members": Member, "phases": Phase, "vote": Vote}
    kind: type[msgspec.Struct] = kinds.get(last, Scenario)
    return kind.__struct_fields__


def _near(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def _wrong(path: str, what: str) -> InvalidRequest:
    message = f"{path}: {what}" if path else what
    return InvalidRequest(message, param=path or None, code="invalid_scene")
