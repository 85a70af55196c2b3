"""What a scene is made of: members, phases and rules, as scene files and callers write them. Pure.

``scene_file`` reads and checks them.
"""

from typing import Annotated, Literal
from unicodedata import normalize

from msgspec import Meta, Struct

from greenroom.runtime.agent_records import Overflow
from greenroom.runtime.errors import InvalidRequest

Order = Literal["turn_by_turn", "round_robin", "broadcast", "moderated", "free"]
Method = Literal["majority", "ranked"]
Count = Annotated[int, Meta(ge=1)]
MAX_MEMBERS = 1000
MAX_AT_ONCE = 256
"""What one scene may ask for: far more than a stage can play, and no more than a loop can plan."""
Words = Annotated[str, Meta(min_length=1)]


class _Written(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    pass


class Member(_Written, frozen=True):
    """Who takes part. ``agent`` is the agent's name, by default made of scene and member.

    An ``ephemeral`` member begins each phase without memory: it knows what that phase has brought,
    and no more. ``overflow`` is what becomes of a history that outgrows the context window.
    """

    name: str
    system: str | None = None
    agent: str | None = None
    ephemeral: bool = False
    max_tokens: Count | None = None
    overflow: Overflow | None = None


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
    ``stop_words`` end the scene, a string of ``stop`` what a member says. ``temperature`` as in
    ``Sampling``; with a ``seed`` every turn has one of its own.
    """

    name: str
    members: Annotated[tuple[Member, ...], Meta(min_length=1, max_length=MAX_MEMBERS)]
    phases: tuple[Phase, ...] = ()
    order: Order = "round_robin"
    moderator: str | None = None
    max_turns: Count | None = None
    stop_words: tuple[Words, ...] = ()
    stop: tuple[Words, ...] = ()
    max_tokens: Count = 96
    at_once: Annotated[int, Meta(ge=1, le=MAX_AT_ONCE)] = 2
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
        """The member of that name, however it is composed. Raises InvalidRequest (``member``)."""
        own = normalize("NFC", name)
        for each in self.members:
            if each.name == own:
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
