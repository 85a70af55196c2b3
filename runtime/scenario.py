"""What a scene is made of: members, phases and rules, as scene files and callers write them. Pure.

A scene file is TOML with the keys of ``Scenario``; ``docs/scenes.md`` describes them.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.names import validate_name

Order = Literal["turn_by_turn", "round_robin", "broadcast", "moderated", "free"]
Method = Literal["majority", "ranked"]
Count = Annotated[int, Meta(ge=1)]
Words = Annotated[str, Meta(min_length=1)]

_PATH = re.compile(r"^(?P<what>.*?) - at `\$\.?(?P<path>[^`]*)`$", re.DOTALL)


class _Written(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    pass


class Member(_Written, frozen=True):
    """Who takes part. ``agent`` is the agent's name, by default made of scene and member.

    An ``ephemeral`` member begins each phase without memory: it knows what that phase has brought,
    and no more.
    """

    name: str
    system: str | None = None
    agent: str | None = None
    ephemeral: bool = False
    max_tokens: Count | None = None


class Vote(_Written, frozen=True):
    """A question with ``options`` that ``voters`` (by default all members) answer in secret.

    "majority" takes each voter's first choice, "ranked" is a Borda count: see ``ballot``.
    """

    question: Words
    options: Annotated[tuple[Words, ...], Meta(min_length=2)]
    method: Method = "majority"
    voters: tuple[str, ...] | None = None


class Phase(_Written, frozen=True):
    """A part of a scene with an order of its own. The members keep their memory from one to the
    next.

    ``turns`` are turns of all members together: by default one for each in ``cast`` (all members)
    or ``speakers``. ``opening`` is told to everybody as the phase begins, ``whispers`` to one
    member each; ``cue`` is put to whoever speaks. What is said reaches ``audience`` only, or
    everybody. A public line with one of the ``stop_words`` ends the phase. ``vote`` is held last.
    """

    name: str = ""
    order: Order = "round_robin"
    cast: tuple[str, ...] | None = None
    turns: Count | None = None
    speakers: tuple[str, ...] | None = None
    moderator: str | None = None
    opening: str = ""
    whispers: dict[str, str] = {}
    cue: str = ""
    audience: tuple[str, ...] | None = None
    stop_words: tuple[Words, ...] = ()
    max_tokens: Count | None = None
    vote: Vote | None = None


class Scenario(_Written, frozen=True):
    """A whole scene. Without ``phases`` there is one, which ``order`` governs and which never ends.

    At most ``at_once`` members speak at a time where the order lets them; ``max_turns`` and
    ``stop_words`` end the scene. ``temperature`` as in ``Sampling``; with a ``seed`` every turn
    has one of its own.
    """

    name: str
    members: Annotated[tuple[Member, ...], Meta(min_length=1)]
    phases: tuple[Phase, ...] = ()
    order: Order = "round_robin"
    moderator: str | None = None
    max_turns: Count | None = None
    stop_words: tuple[Words, ...] = ()
    max_tokens: Count = 96
    at_once: Count = 2
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    seed: Annotated[int, Meta(ge=0)] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, as listed."""
        return tuple(m.name for m in self.members)

    @property
    def script(self) -> tuple[Phase, ...]:
        """The phases, of which there is at least one."""
        return self.phases or (Phase(order=self.order, moderator=self.moderator),)

    @property
    def endless(self) -> bool:
        """Nothing but a stop word ends it."""
        return not self.phases and self.max_turns is None

    def member(self, name: str) -> Member:
        """The member of that name. Raises InvalidRequest (``member``)."""
        for each in self.members:
            if each.name == name:
                return each
        raise InvalidRequest(
            f"{self.name} has no member {name!r}, only {', '.join(self.names)}",
            param="member",
            code="no_such_member",
        )

    def cast(self, phase: Phase) -> tuple[str, ...]:
        """Who speaks in a phase; its moderator does only if named."""
        if phase.cast is not None:
            return phase.cast
        if phase.speakers is not None:
            return tuple(dict.fromkeys(phase.speakers))
        return tuple(n for n in self.names if phase.order != "moderated" or n != phase.moderator)

    def turns(self, phase: Phase) -> int | None:
        """How many turns a phase has; None: no end."""
        if phase.turns is not None or not self.phases:
            return phase.turns
        return len(phase.speakers or self.cast(phase))


def checked(scenario: Scenario) -> Scenario:
    """The scenario with agents filled in. Raises InvalidRequest that names the field at fault."""
    name = _legal(scenario.name, "name")
    members: list[Member] = []
    for n, member in enumerate(scenario.members):
        own = _legal(member.name, f"members[{n}].name")
        if own in (m.name for m in members):
            raise _wrong(f"members[{n}].name", f"{own!r} is there twice")
        agent = _legal(member.agent or f"{name}.{own}", f"members[{n}].agent")
        members.append(msgspec.structs.replace(member, name=own, agent=agent))
    agents = [m.agent for m in members]
    if len(set(agents)) < len(agents):
        raise _wrong("members", "two members cannot be one agent")
    scenario = msgspec.structs.replace(scenario, name=name, members=tuple(members))
    for n, phase in enumerate(scenario.script):
        _check_phase(scenario, phase, f"phases[{n}]." if scenario.phases else "")
    return scenario


def check_vote(vote: Vote, names: Iterable[str], path: str = "") -> None:
    """Raise InvalidRequest unless voters are members and options can be told apart."""
    _known(vote.voters, names, f"{path}voters")
    if vote.voters is not None and not vote.voters:
        raise _wrong(f"{path}voters", "nobody would vote")
    plain = [" ".join(o.casefold().split()) for o in vote.options]
    if len(set(plain)) < len(plain) or not all(plain):
        raise _wrong(f"{path}options", "the options cannot be told apart")


def read_scenario(text: str) -> Scenario:
    """A scene file's text. Raises InvalidRequest, which names the key and what is wrong with it."""
    try:
        return checked(msgspec.toml.decode(text, type=Scenario))
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        what, path = (match["what"], match["path"]) if match else (str(error), "")
        raise InvalidRequest(
            f"{path}: {what}" if path else what, param=path or None, code="invalid_scene"
        ) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRequest(f"not TOML: {error}", code="invalid_toml") from None


def _check_phase(scenario: Scenario, phase: Phase, path: str) -> None:
    names = scenario.names
    for field in ("cast", "speakers", "audience"):
        _known(getattr(phase, field), names, path + field)
    _known(phase.whispers, names, f"{path}whispers")
    if not scenario.cast(phase):
        raise _wrong(f"{path}cast", "nobody would speak")
    if phase.order == "moderated" and phase.moderator is None:
        raise _wrong(f"{path}moderator", "a moderated phase needs one")
    if phase.moderator is not None:
        _known((phase.moderator,), names, f"{path}moderator")
    if phase.speakers is not None and phase.order != "turn_by_turn":
        raise _wrong(f"{path}speakers", "only the order turn_by_turn follows a list of speakers")
    if phase.vote is not None:
        check_vote(phase.vote, names, f"{path}vote.")


def _known(given: Iterable[str] | None, names: Iterable[str], path: str) -> None:
    known = tuple(names)
    for name in given or ():
        if name not in known:
            raise _wrong(path, f"{name!r} is not a member (there are {', '.join(known)})")


def _legal(name: str, path: str) -> str:
    try:
        return validate_name(name)
    except InvalidRequest as error:
        raise _wrong(path, str(error)) from None


def _wrong(path: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {what}", param=path, code="invalid_scene")
