"""What greenroom's actors say to each other. Requests declare their answers; see ``Request``."""

import msgspec

from greenroom.runtime.admission import Backing
from greenroom.runtime.channel import Channel
from greenroom.runtime.codec import Payload
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.frame import PLAIN, Frame
from greenroom.runtime.job import Job, JobEvent
from greenroom.runtime.message import Message, Request
from greenroom.runtime.records import (
    AgentInfo,
    ChatMessage,
    Forgotten,
    Heard,
    SpawnRequest,
    TurnEvent,
    TurnRequest,
)
from greenroom.runtime.ref import Ref
from greenroom.runtime.resume import Link
from greenroom.runtime.rows import Rows
from greenroom.runtime.segments import Piece, Segment
from greenroom.runtime.spec import CacheSpec
from greenroom.runtime.text import Text


class AgentKey(msgspec.Struct, frozen=True):
    """Which agent: a name within the namespace of whoever owns it."""

    namespace: str
    name: str


class ModelFacts(msgspec.Struct, frozen=True):
    """What the others need to know of the model that the GPU actor has loaded.

    ``context_window`` is in tokens; ``temperature`` and ``top_p`` are the model's own advice.
    """

    fingerprint: str
    context_window: int
    text: Text
    spec: CacheSpec
    temperature: float
    top_p: float


# To the GPU actor


class Describe(Request[ModelFacts], frozen=True):
    """Which model is loaded."""


class Generate(Message, frozen=True):
    """Put a job on the stage; its events go to ``reply``, whose cancellation frees the slot."""

    uid: int
    job: Job
    reply: Channel[JobEvent]


class Promote(Message, frozen=True):
    """Somebody waits for a background job now: it goes on as if it were in the foreground."""

    uid: int


class Finish(Message, frozen=True):
    """End a job as if it had stopped after its first ``keep`` sampled tokens."""

    uid: int
    keep: int


class Named(Message, frozen=True):
    """What a job has brought is kept as these segments: decoded copies of them can be shared."""

    uid: int
    ids: tuple[str, ...]


class Discard(Message, frozen=True):
    """These segments are forgotten: nothing decoded of them is to stay."""

    ids: tuple[str, ...]


class Count(Request[StageCounters], frozen=True):
    """What the stage has done so far."""


class Back(Message, frozen=True):
    """What memories beside the stage take from now on."""

    backing: Backing


GpuMessage = Describe | Generate | Promote | Finish | Named | Discard | Count | Back


# To the keeper


class Fetched(msgspec.Struct, frozen=True):
    """The payloads of the chain's segments up to the first one that cannot be read (``bad``)."""

    payloads: tuple[Payload, ...]
    bad: str | None


class Fetch(Message, frozen=True):
    """The encoded bytes of these segments, from memory or from disk; see ``fetching.fetch``.

    Nobody else waits while they are read: not whoever keeps, and not whoever fetches what is hot.
    """

    ids: tuple[str, ...]
    reply: Channel[Fetched]


class Warm(Message, frozen=True):
    """Somebody is about to fetch these segments: begin to read what is not hot."""

    ids: tuple[str, ...]


class Keep(Request[bool], frozen=True):
    """Write these segments and remember their bytes; answered when they are durable.

    False when a segment had been written before, from another computation of the same tokens:
    then those bytes are the segment's, and not the ones given here.
    """

    segments: tuple[tuple[Segment, Payload], ...]


class Held(msgspec.Struct, frozen=True):
    """What is hot: encoded segments in memory, each held once however many agents share it."""

    num_segments: int
    num_bytes: int
    evicted: int


class Weigh(Request[Held], frozen=True):
    """How much is hot."""


class Outline(Request[tuple[Link | None, ...]], frozen=True):
    """What each of these segments holds, without its bytes; None for one that cannot be read."""

    ids: tuple[str, ...]


class Shed(Message, frozen=True):
    """The stage needs so many bytes of what is hot: let go of what was used longest ago."""

    num_bytes: int


class Settle(Message, frozen=True):
    """What was kept is committed, or never will be: its files may be deleted again."""

    ids: tuple[str, ...]


class Doom(Request[None], frozen=True):
    """These segments' files are about to go, unless a turn has kept them or is going to: said
    before it is looked up that nobody needs them."""

    ids: tuple[str, ...]


class DropStates(Request[int], frozen=True):
    """Delete the tails and states of these segments, hot ones too; the bytes freed on disk."""

    ids: tuple[str, ...]


class Drop(Request[int], frozen=True):
    """Delete files and hot bytes of those of these segments that are still doomed; bytes freed."""

    ids: tuple[str, ...]


KeeperMessage = Warm | Fetch | Keep | Weigh | Outline | Settle | Doom | Drop | DropStates | Shed


# To the store


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
    """Find an agent or make it (see ``SpawnRequest``); Conflict where it exists as another, or at
    all if it is to be ``new``."""

    wanted: SpawnRequest
    new: bool = False


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


StoreMessage = (
    Match
    | LetGo
    | Recall
    | Commit
    | Forget
    | FindAgent
    | ListAgents
    | Enrol
    | Whose
    | Trace
    | Dates
    | Branch
    | Pin
    | Pinned
    | Retire
    | Overdue
    | Remove
    | Remove
    | Survey
    | Measure
    | Evict
    | Unstored
)


# To the custodian


class Freed(msgspec.Struct, frozen=True):
    """What is gone from disk."""

    num_segments: int
    num_bytes: int


class Erase(Request[Freed], frozen=True):
    """Remove these segments now, rows and files, except what a head, a pin or a running turn
    needs. Afterwards no byte of them is in the store."""

    ids: tuple[str, ...]


class Wrote(Message, frozen=True):
    """The store has grown by so many bytes; None where the disk had no room for them."""

    num_bytes: int | None


class Cleared(msgspec.Struct, frozen=True):
    """What a round has found and done; ``num_bytes`` is what the store takes now."""

    num_bytes: int
    quota_bytes: int
    num_strays: int
    num_collected: int
    num_evicted: int
    freed_bytes: int
    num_superseded: int
    superseded_bytes: int


class Tidy(Request[Cleared], frozen=True):
    """Go through the whole store and clear what the quota and the time allow to go."""


class Rounds(Message, frozen=True):
    """It is time for a round, as the custodian tells itself."""


CustodianMessage = Erase | Wrote | Tidy | Rounds


# To an agent


class Turn(Message, frozen=True):
    """Take a turn; its events go to ``reply``. ``arrived`` is on the process's monotonic clock."""

    request: TurnRequest
    reply: Channel[TurnEvent]
    arrived: float


class Hear(Message, frozen=True):
    """Hear something, in the background. Later turns know it, or will have heard it by then."""

    message: ChatMessage


class Attend(Message, frozen=True):
    """Tell ``reply`` once all that was told before is durable, or at once if not ``settled``."""

    reply: Channel[Heard]
    settled: bool


class Fork(Request[AgentInfo], frozen=True):
    """Give the memory to a new agent, up to a segment if one is named; see ``House.fork``."""

    name: str
    at: str | None


class Rollback(Request[AgentInfo], frozen=True):
    """Stand where the agent stood at a segment of its chain; see ``House.rollback``."""

    to: str


class Vanish(Request[Forgotten], frozen=True):
    """Be forgotten; if only when ``overdue``, not after a turn in the meantime."""

    overdue: bool = False


AgentMessage = Turn | Hear | Attend | Fork | Rollback | Vanish


# To the director


class Wake(Request[Ref[AgentMessage]], frozen=True):
    """The agent of that key, made ready if need be, and enrolled unless its first turn is to do so
    (or somebody has done it)."""

    key: AgentKey
    enrol: bool = True


DirectorMessage = Wake


# To the reaper


class Sweep(Message, frozen=True):
    """Have those forgotten whose time is over."""


ReaperMessage = Sweep
