"""What the doors ask of the composition root: the house they stand in front of."""

from typing import Protocol

import msgspec

from greenroom.runtime.channel import Channel
from greenroom.runtime.inspect import SystemInfo
from greenroom.runtime.pace import StageCounters
from greenroom.runtime.records import AgentInfo, Heard, HearRequest, TurnEvent, TurnRequest
from greenroom.runtime.settings import Settings


class ModelCard(msgspec.Struct, frozen=True):
    """The served model as callers see it.

    ``name`` is its catalog name, ``hf_id`` its Hugging Face id where it has one, ``context_window``
    in tokens, ``created`` in seconds since the epoch. ``fingerprint`` is OpenAI's: what with equal
    seeds gives equal answers.
    """

    name: str
    hf_id: str | None
    context_window: int
    created: int
    fingerprint: str = "fp_unknown"


class Status(msgspec.Struct, frozen=True):
    """What goes on inside: every actor, and what the stage has done so far."""

    stage: StageCounters
    actors: SystemInfo


class House(Protocol):
    """One loaded model with its agents; every door (HTTP, WebSocket) talks to this and no further.

    ``open_turn`` raises ``InvalidRequest``, ``NotFound``, ``Conflict``, ``MailboxFull`` or
    ``Unavailable`` before any work; the first event of a good turn is ``TurnStarted``, and
    cancelling the channel cancels the work behind it. ``resolve_model`` raises ``NotFound`` (param
    "model") for a name that is not served. ``ready`` is false until the model is loaded and once
    draining has begun.

    ``hear`` tells an agent something without asking for an answer, and returns before it is heard:
    it raises ``InvalidRequest``, ``MailboxFull`` or ``Unavailable``. ``heard`` says how far the
    agent has got; with ``settled`` it waits until all of it is durable, and raises what prevents
    that.
    """

    @property
    def settings(self) -> Settings: ...

    @property
    def model(self) -> ModelCard: ...

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]: ...

    async def hear(self, request: HearRequest) -> None: ...

    async def heard(self, namespace: str, agent: str, *, settled: bool = True) -> Heard: ...

    async def agents(self, namespace: str) -> list[AgentInfo]: ...

    async def status(self) -> Status: ...

    def resolve_model(self, name: str | None) -> str: ...

    def ready(self) -> bool: ...
