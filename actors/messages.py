"""What greenroom's actors say to each other. Requests declare their answers; see ``Request``."""

import msgspec

from greenroom.runtime.admission import Backing
from greenroom.runtime.channel import Channel
from greenroom.runtime.codec import Payload
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.job import Job, JobEvent
from greenroom.runtime.message import Message, Request
from greenroom.runtime.reach import Rows
from greenroom.runtime.records import AgentInfo, ChatMessage, Heard, TurnEvent, TurnRequest
from greenroom.runtime.ref import Ref
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


class Count(Request[StageCounters], frozen=True):
    """What the stage has done so far."""


class Back(Message, frozen=True):
    """What memories beside the stage take from now on."""

    backing: Backing


GpuMessage = Describe | Generate | Promote | Finish | Count | Back


# To the keeper


class Fetched(msgspec.Struct, frozen=True):
    """The payloads of the chain's segments up to the first one that cannot be read (``bad``)."""

    payloads: tuple[Payload, ...]
    bad: str | None


class Fetch(Request[Fetched], frozen=True):
    """The encoded bytes of these segments, from memory or from disk."""

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


class Drop(Request[int], frozen=True):
    """Delete files and hot bytes of those of these segments that are still doomed; bytes freed."""

    ids: tuple[str, ...]


KeeperMessage = Fetch | Keep | Weigh | Settle | Doom | Drop | Shed


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
    """Index these (durable) segments and move the agent's head, in one transaction."""

    key: AgentKey
    segments: tuple[Segment, ...]
    head: str | None


class Forget(Request[None], frozen=True):
    """A segment's bytes are lost or damaged: match it no more; what it says is still known."""

    id: str


class FindAgent(Request[AgentInfo | None], frozen=True):
    """What the index knows of an agent."""

    key: AgentKey


class ListAgents(Request[tuple[AgentInfo, ...]], frozen=True):
    """Every agent of a namespace, by name."""

    namespace: str


class Enrol(Request[AgentInfo], frozen=True):
    """Find an agent or make it; raises Conflict where it exists with another system prompt."""

    key: AgentKey
    system: str | None


class Whose(Request[AgentKey | None], frozen=True):
    """The agent whose whole memory is a prefix of a prompt, given as ``tokens`` and as text."""

    namespace: str
    tokens: tuple[int, ...]
    rendered: str


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


AgentMessage = Turn | Hear | Attend


# To the director


class Wake(Request[Ref[AgentMessage]], frozen=True):
    """The agent of that key, made ready if need be, and enrolled unless its first turn is to do so.

    Raises Conflict where it exists with another system prompt than ``system`` (None: any).
    """

    key: AgentKey
    system: str | None = None
    enrol: bool = True


DirectorMessage = Wake
