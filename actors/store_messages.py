"""What is said to the store, and what it answers."""

import msgspec

from greenroom.actors.agent_messages import AgentKey
from greenroom.runtime.agent_records import AgentInfo, SpawnRequest
from greenroom.runtime.frame import PLAIN, Frame
from greenroom.runtime.message import Message, Request
from greenroom.runtime.rows import Rows
from greenroom.runtime.segments import Piece, Segment


class Match(Request[tuple[Piece, ...]], frozen=True):
    """The longest prefix of ``tokens`` that anybody in the namespace remembers.

    Nothing of it is evicted or collected until ``holder`` commits, matches again or lets go.
    """

    namespace: str
    tokens: tuple[int, ...]
    holder: AgentKey | None = None


class LetGo(Message, frozen=True):
    """What this agent has matched and not committed may be evicted and collected again."""

    holder: AgentKey


class Recall(Request[tuple[Piece, ...]], frozen=True):
    """The chain that ends at ``head``, as far as it is whole."""

    head: str | None


class Commit(Request[None], frozen=True):
    """Index these (durable) segments and move the agent's head, in one transaction.

    ``frame`` is what its prompts are rendered with from now on; None: as before.
    """

    key: AgentKey
    segments: tuple[Segment, ...]
    head: str | None
    frame: Frame | None = None


class Forget(Request[None], frozen=True):
    """A segment's bytes are lost or damaged: match it no more; what it says is still known."""

    id: str


class Known(msgspec.Struct, frozen=True):
    """An agent, and the ``scope`` within which its segments are addressed and matched.

    ``frame`` is what its prompts are rendered with.
    """

    info: AgentInfo
    scope: str
    frame: Frame = PLAIN


class FindAgent(Request[Known | None], frozen=True):
    """What the index knows of an agent."""

    key: AgentKey


class ListAgents(Request[tuple[AgentInfo, ...]], frozen=True):
    """Every agent of a namespace, by name."""

    namespace: str


class Enrol(Request[AgentInfo], frozen=True):
    """Find an agent or make it (see ``SpawnRequest``); Conflict where it exists as another."""

    wanted: SpawnRequest


class Adopt(Request[AgentInfo], frozen=True):
    """Make an agent that comes with its memory: index these (durable) segments, at the last of
    which it stands, in one transaction. Raises Conflict where one of its name exists.

    ``salt`` is what the scope of its segments has, see ``scope_of``; ``frame`` as in ``Commit``.
    """

    wanted: SpawnRequest
    salt: str | None
    segments: tuple[Segment, ...]
    frame: Frame


class Branch(Request[AgentInfo], frozen=True):
    """Make an agent ``name`` that stands at ``head``, otherwise as ``key``. Raises Conflict."""

    key: AgentKey
    name: str
    head: str | None


class Pin(Request[None], frozen=True):
    """Keep a segment for an agent, or let go of it."""

    key: AgentKey
    segment: str
    pinned: bool


class Pinned(Request[frozenset[str]], frozen=True):
    """The segments that an agent has pinned."""

    key: AgentKey


class Retire(Request[tuple[str, ...] | None], frozen=True):
    """Forget an agent, its row and its pins; the ids of what nobody needs any more in its scope.

    With ``overdue`` only if its time is over, and None if it is not. Raises NotFound.
    """

    key: AgentKey
    overdue: bool = False


class Overdue(Request[tuple[AgentKey, ...]], frozen=True):
    """The agents whose time is over."""


class Whose(Request[AgentKey | None], frozen=True):
    """The agent whose whole memory is a prefix of a prompt, given as text."""

    namespace: str
    rendered: str


class Heir(Request[AgentKey | None], frozen=True):
    """The agent that stands at a segment, else one that has come from there, if there is any.

    Raises InvalidRequest (param "previous_response_id") for a segment that the namespace has not.
    """

    namespace: str
    segment: str


class Trace(Request[tuple[Piece, ...]], frozen=True):
    """The chain that a prompt, given as text, follows as far as anybody remembers it."""

    namespace: str
    rendered: str


class Dates(Request[tuple[str, ...]], frozen=True):
    """The dates that a namespace's agents are pinned to, the newest first, each once."""

    namespace: str


class Remove(Request[tuple[str, ...]], frozen=True):
    """Forget these segments, except what a head, a pin or a running turn needs; the ids of those
    gone, whose files are then to be deleted."""

    ids: tuple[str, ...]


class Stored(msgspec.Struct, frozen=True):
    """What is on disk, of all namespaces and models."""

    num_agents: int
    num_segments: int
    num_bytes: int


class Measure(Request[Stored], frozen=True):
    """How much is on disk."""


class Reach(msgspec.Struct, frozen=True):
    """What the index holds, and where running turns go on from."""

    rows: Rows
    held: frozenset[str]
    segments: dict[str, Segment]


class Survey(Request[Reach], frozen=True):
    """What needs what on disk."""


class Evict(Request[tuple[str, ...]], frozen=True):
    """Of these segments only what they say stays known, except where a pin or a running turn needs
    the bytes; the ids of those whose files are then to be deleted."""

    ids: tuple[str, ...]


class Unstored(Request[tuple[str, ...]], frozen=True):
    """Which of these ids are of no segment that has bytes."""

    ids: tuple[str, ...]


Question = (
    Match
    | LetGo
    | Recall
    | Forget
    | FindAgent
    | ListAgents
    | Whose
    | Heir
    | Trace
    | Dates
    | Pinned
    | Overdue
    | Measure
)
"""Answered from memory, whatever is being written."""
Alteration = Enrol | Adopt | Branch | Commit
"""Written together with others."""
Upkeep = Pin | Retire | Remove | Survey | Evict | Unstored
"""Done, or said, while nothing else is being written."""
StoreMessage = Question | Alteration | Upkeep
