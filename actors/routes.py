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
from greenroom.actors.openapi import Query, Route
from greenroom.actors.portage_door import PortageDoor
from greenroom.actors.websocket import SocketDoor
from greenroom.runtime.records import AgentInfo, Heard, Probe

_AGENT = "/v1/agents/{name}"
_PAGE = (
    Query("limit", "integer", "At most so many, 100 if nothing is said."),
    Query("after", "string", "Only names behind this one."),
    Query("prefix", "string", "Only names that begin like this."),
)
_BYTES = "application/octet-stream"


def routes_of(house: House, metrics: MetricsDoor, sockets: SocketDoor) -> list[Route]:
    """The routes in front of ``house``."""
    return [
        *_small(Lobby(house), metrics),
        *_openai(ChatDoor(house), LegacyDoor(house)),
        *_agents(AgentsDoor(house)),
        *_memories(AgentsDoor(house), PortageDoor(house)),
        *_admin(AdminDoor(house)),
        Route(method="GET", path=f"{_AGENT}/stream", handler=sockets.one, status=101),
        Route(method="GET", path="/v1/stream", handler=sockets.many, status=101),
        Route(
            method="GET",
            path="/v1/stream/schema",
            handler=sockets.schema,
            media="application/schema+json",
        ),
    ]


def _small(lobby: Lobby, metrics: MetricsDoor) -> list[Route]:
    return [
        Route(method="GET", path="/health", handler=lobby.health),
        Route(method="GET", path="/health/ready", handler=lobby.ready),
        Route(method="GET", path="/metrics", handler=metrics.get, media="text/plain"),
        Route(method="GET", path="/v1/models", handler=lobby.models),
        Route(method="GET", path="/v1/models/{id:.+}", handler=lobby.model),
    ]


def _openai(chat: ChatDoor, legacy: LegacyDoor) -> list[Route]:
    return [
        Route(
            method="POST",
            path="/v1/chat/completions",
            handler=chat.post,
            body=ChatBody,
            required=("messages",),
            answer=Completion,
            streams=True,
        ),
        Route(
            method="POST",
            path="/v1/completions",
            handler=legacy.post,
            body=CompletionBody,
            required=("prompt",),
            answer=LegacyCompletion,
            streams=True,
        ),
    ]


def _agents(agents: AgentsDoor) -> list[Route]:
    return [
        Route(
            method="POST",
            path="/v1/agents",
            handler=agents.spawn,
            body=SpawnBody,
            required=("name",),
            answer=AgentInfo,
        ),
        Route(method="GET", path="/v1/agents", handler=agents.list, query=_PAGE, answer=AgentList),
        Route(method="GET", path=_AGENT, handler=agents.find, answer=AgentInfo),
        Route(method="DELETE", path=_AGENT, handler=agents.delete, answer=Deleted),
        Route(
            method="POST",
            path=f"{_AGENT}/say",
            handler=agents.say,
            body=SayBody,
            answer=Answered,
            streams=True,
        ),
        Route(
            method="POST",
            path=f"{_AGENT}/hear",
            handler=agents.hear,
            body=HearBody,
            required=("content",),
            answer=Heard,
            status=202,
        ),
        Route(
            method="GET",
            path=f"{_AGENT}/heard",
            handler=agents.heard,
            query=(Query("settled", "boolean", "Wait until all of it is durable."),),
            answer=Heard,
        ),
        Route(
            method="POST", path=f"{_AGENT}/probe", handler=agents.probe, body=SayBody, answer=Probe
        ),
    ]


def _memories(agents: AgentsDoor, portage: PortageDoor) -> list[Route]:
    return [
        Route(
            method="POST",
            path=f"{_AGENT}/fork",
            handler=agents.fork,
            body=ForkBody,
            required=("name",),
            answer=AgentInfo,
            status=201,
        ),
        Route(
            method="POST",
            path=f"{_AGENT}/rollback",
            handler=agents.rollback,
            body=RollbackBody,
            required=("to",),
            answer=AgentInfo,
        ),
        Route(method="GET", path=f"{_AGENT}/log", handler=agents.log, answer=Log),
        *(
            Route(
                method="POST",
                path=f"{_AGENT}/{verb}",
                handler=handler,
                body=PinBody,
                required=None,
                answer=Pinned,
            )
            for verb, handler in (("pin", agents.pin), ("unpin", agents.unpin))
        ),
        Route(method="GET", path=f"{_AGENT}/export", handler=portage.export, media=_BYTES),
        Route(
            method="POST",
            path=f"{_AGENT}/import",
            handler=portage.import_named,
            upload=True,
            answer=AgentInfo,
            status=201,
        ),
        Route(
            method="POST",
            path="/v1/agents/import",
            handler=portage.import_own,
            upload=True,
            answer=AgentInfo,
            status=201,
        ),
    ]


def _admin(admin: AdminDoor) -> list[Route]:
    return [
        Route(method="GET", path="/admin/status", handler=admin.status, answer=Status),
        Route(method="GET", path="/admin/models", handler=admin.models, answer=Models),
        Route(
            method="POST",
            path="/admin/models/swap",
            handler=admin.swap,
            body=SwapBody,
            required=("model",),
            answer=ModelCard,
        ),
        Route(method="POST", path="/admin/models/offload", handler=admin.offload, answer=Readiness),
        Route(method="DELETE", path="/admin/caches", handler=admin.let_go, answer=Status),
        Route(
            method="POST",
            path="/admin/drain",
            handler=admin.drain,
            body=DrainBody,
            required=None,
            answer=Readiness,
        ),
    ]
