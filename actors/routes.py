"""Every route: where it is reached, who handles it, and the types of what it takes and gives."""

from greenroom.actors.admin_door import AdminDoor, DrainBody, Models, Readiness, SwapBody
from greenroom.actors.agents_door import (
    AgentList,
    AgentsDoor,
    Answered,
    Deleted,
    Log,
    Pinned,
)
from greenroom.actors.agents_requests import (
    ForkBody,
    HearBody,
    PinBody,
    RollbackBody,
    SayBody,
    SpawnBody,
)
from greenroom.actors.chat import ChatDoor
from greenroom.actors.completion import Completion
from greenroom.actors.house import House
from greenroom.actors.house_records import ModelCard, Status
from greenroom.actors.legacy import CompletionBody, LegacyCompletion
from greenroom.actors.legacy_door import LegacyDoor
from greenroom.actors.lobby import Lobby
from greenroom.actors.metrics import MetricsDoor
from greenroom.actors.openai import ChatBody
from greenroom.actors.openapi import Query, Route, delete, get, post
from greenroom.actors.portage_door import PortageDoor
from greenroom.actors.websocket import SocketDoor
from greenroom.runtime.agent_records import AgentInfo, Heard, Probe

_AGENT = "/v1/agents/{name}"
_PAGE = (
    Query("limit", "integer", "At most so many, 100 if nothing is said."),
    Query("after", "string", "Only names behind this one."),
    Query("prefix", "string", "Only names that begin like this."),
)
_SETTLED = Query("settled", "boolean", "Wait until all of it is durable.")
_BYTES = "application/octet-stream"
_SCHEMA = "application/schema+json"


def routes_of(house: House, metrics: MetricsDoor, sockets: SocketDoor) -> list[Route]:
    """The routes in front of ``house``."""
    lobby = Lobby(house)
    return [
        get("/health", lobby.health),
        get("/health/ready", lobby.ready),
        get("/metrics", metrics.get, media="text/plain"),
        get("/v1/models", lobby.models),
        get("/v1/models/{id:.+}", lobby.model),
        *_openai(ChatDoor(house), LegacyDoor(house)),
        *_agents(AgentsDoor(house), PortageDoor(house)),
        *_admin(AdminDoor(house)),
        get(f"{_AGENT}/stream", sockets.one, status=101),
        get("/v1/stream", sockets.many, status=101),
        get("/v1/stream/schema", sockets.schema, media=_SCHEMA),
    ]


def _openai(chat: ChatDoor, legacy: LegacyDoor) -> list[Route]:
    return [
        post(
            "/v1/chat/completions",
            chat.post,
            Completion,
            body=ChatBody,
            required=("messages",),
            streams=True,
        ),
        post(
            "/v1/completions",
            legacy.post,
            LegacyCompletion,
            body=CompletionBody,
            required=("prompt",),
            streams=True,
        ),
    ]


def _agents(door: AgentsDoor, portage: PortageDoor) -> list[Route]:
    return [
        post("/v1/agents", door.spawn, AgentInfo, body=SpawnBody, required=("name",)),
        get("/v1/agents", door.list, AgentList, query=_PAGE),
        post("/v1/agents/import", portage.import_own, AgentInfo, 201, upload=True),
        get(_AGENT, door.find, AgentInfo),
        delete(_AGENT, door.delete, Deleted),
        post(f"{_AGENT}/say", door.say, Answered, body=SayBody, streams=True),
        post(f"{_AGENT}/hear", door.hear, Heard, 202, body=HearBody, required=("content",)),
        get(f"{_AGENT}/heard", door.heard, Heard, query=(_SETTLED,)),
        post(f"{_AGENT}/probe", door.probe, Probe, body=SayBody),
        post(f"{_AGENT}/fork", door.fork, AgentInfo, 201, body=ForkBody, required=("name",)),
        post(f"{_AGENT}/rollback", door.rollback, AgentInfo, body=RollbackBody, required=("to",)),
        get(f"{_AGENT}/log", door.log, Log),
        post(f"{_AGENT}/pin", door.pin, Pinned, body=PinBody, required=None),
        post(f"{_AGENT}/unpin", door.unpin, Pinned, body=PinBody, required=None),
        get(f"{_AGENT}/export", portage.export, media=_BYTES),
        post(f"{_AGENT}/import", portage.import_named, AgentInfo, 201, upload=True),
    ]


def _admin(door: AdminDoor) -> list[Route]:
    return [
        get("/admin/status", door.status, Status),
        get("/admin/models", door.models, Models),
        post("/admin/models/swap", door.swap, ModelCard, body=SwapBody, required=("model",)),
        post("/admin/models/offload", door.offload, Readiness),
        delete("/admin/caches", door.let_go, Status),
        post("/admin/drain", door.drain, Readiness, body=DrainBody, required=None),
    ]
