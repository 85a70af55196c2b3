"""The routes of scenes, as ``routes`` has those of everything else."""

from greenroom.actors.house import House
from greenroom.actors.openapi import Query, Route
from greenroom.actors.scene_messages import SceneInfo
from greenroom.actors.scene_socket import SceneSocketDoor
from greenroom.actors.scenes_door import RunRequest, ScenesDoor, TellRequest
from greenroom.runtime.ballot import Tally
from greenroom.runtime.scenario import Scenario, Vote
from greenroom.runtime.transcript import Line

_ALL = "/v1/scenes"
_ONE = f"{_ALL}/{{name}}"
_HEARD_BY = Query("heard_by", "string", "Only what this member has said or heard.")


def scene_routes(house: House, sockets: SceneSocketDoor) -> list[Route]:
    """The routes of scenes in front of ``house``."""
    door = ScenesDoor(house)
    return [
        Route(method="GET", path=_ALL, handler=door.list),
        Route(
            method="POST",
            path=_ALL,
            handler=door.create,
            body=Scenario,
            answer=SceneInfo,
            status=201,
            required=("name", "members"),
        ),
        Route(method="GET", path=_ONE, handler=door.info, answer=SceneInfo),
        Route(method="DELETE", path=_ONE, handler=door.delete, status=204),
        Route(method="GET", path=f"{_ONE}/transcript", handler=door.transcript, query=(_HEARD_BY,)),
        Route(method="GET", path=f"{_ONE}/entries", handler=door.entries),
        Route(
            method="POST",
            path=f"{_ONE}/run",
            handler=door.run,
            body=RunRequest,
            required=None,
            streams=True,
        ),
        Route(
            method="POST",
            path=f"{_ONE}/lines",
            handler=door.tell,
            body=TellRequest,
            answer=Line,
            status=201,
            required=("text",),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/votes",
            handler=door.vote,
            body=Vote,
            answer=Tally,
            required=("question", "options"),
        ),
        Route(method="GET", path=f"{_ONE}/stream", handler=sockets.get, status=101),
    ]
