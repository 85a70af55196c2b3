"""What is said to a scene, and what it tells those who watch it."""

import msgspec

from greenroom.runtime.channel import Channel
from greenroom.runtime.message import Message, Request
from greenroom.runtime.ref import Ref
from greenroom.runtime.scenario import Scenario, Vote
from greenroom.runtime.transcript import Entry, Line


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """``cue`` is the number of the cue whose turn it is."""

    cue: int
    speaker: str


class Speaking(_Event, frozen=True, tag="speaking"):
    """The stage has taken a member's turn; ``cached_tokens`` of its prompt needed no computing."""

    prompt_tokens: int
    cached_tokens: int


class Token(_Event, frozen=True, tag="token"):
    """New text of a turn."""

    text: str


class Interrupted(_Event, frozen=True, tag="interrupted"):
    """A turn failed and is taken again: what it has said so far does not count."""

    reason: str


SceneEvent = Speaking | Token | Interrupted | Entry


class SceneInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where a scene stands. ``phase`` is the running phase's name or number, from 1.

    ``ended`` is the reason why it is over, ``speaking`` who has a turn now; ``turns`` and ``lines``
    count what has been. ``created`` is in seconds since the epoch.
    """

    name: str
    members: tuple[str, ...]
    phase: str | None
    turns: int
    lines: int
    speaking: tuple[str, ...]
    performing: bool
    ended: str | None
    created: float


class Perform(Message, frozen=True):
    """Go on, for ``turns`` turns or to the end; what happens goes to ``reply``.

    ``speaker`` is cued first, out of turn. Conflict (on ``reply``) while it is performed already.
    """

    reply: Channel[SceneEvent]
    turns: int | None = None
    speaker: str | None = None


class HoldVote(Message, frozen=True):
    """Hold a vote; the last event is ``Counted`` and its announcement. Otherwise as ``Perform``."""

    reply: Channel[SceneEvent]
    vote: Vote


class Tell(Request[Line], frozen=True):
    """Say something as the narrator, or as a guest who is no member; ``to`` some members only."""

    text: str
    speaker: str | None = None
    to: tuple[str, ...] | None = None


class Watch(Message, frozen=True):
    """Send all that happens from now on to ``reply``, until it leaves."""

    reply: Channel[SceneEvent]


class Look(Request[SceneInfo], frozen=True):
    """Where the scene stands."""


class Read(Request[tuple[Entry, ...]], frozen=True):
    """All that has happened."""


SceneMessage = Perform | HoldVote | Tell | Watch | Look | Read


class FindScene(Request[Ref[SceneMessage]], frozen=True):
    """The scene's actor. Raises NotFound (``scene``)."""

    namespace: str
    name: str


class MakeScene(Request[None], frozen=True):
    """Make the scene unless it is there. Raises Conflict where it is another."""

    namespace: str
    scenario: Scenario


class DropScene(Request[None], frozen=True):
    """Stop the scene and forget it and all that was said. Raises NotFound (``scene``)."""

    namespace: str
    name: str


TheatreMessage = FindScene | MakeScene | DropScene
