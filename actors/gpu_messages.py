"""What is said to the GPU actor, and what it answers."""

import msgspec

from greenroom.runtime.admission import Backing
from greenroom.runtime.channel import Channel
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.job import Job, JobEvent
from greenroom.runtime.message import Message, Request
from greenroom.runtime.spec import CacheSpec
from greenroom.runtime.text import Text


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


class Extend(Message, frozen=True):
    """More of what is rehearsed is known: these tokens follow. Ignored once that is over."""

    uid: int
    tokens: tuple[int, ...]


class Finish(Message, frozen=True):
    """End a job as if it had stopped after its first ``keep`` sampled tokens."""

    uid: int
    keep: int


class Named(Message, frozen=True):
    """What a job has brought is kept as these segments: decoded copies of them can be shared."""

    uid: int
    ids: tuple[str, ...]


class Discard(Message, frozen=True):
    """The bytes of these segments are gone: nothing decoded of them is to stay."""

    ids: tuple[str, ...]


class Count(Request[StageCounters], frozen=True):
    """What the stage has done so far."""


class Back(Message, frozen=True):
    """What memories beside the stage take from now on."""

    backing: Backing


GpuMessage = Describe | Generate | Promote | Extend | Finish | Named | Discard | Count | Back
