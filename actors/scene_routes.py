"""The routes of scenes, as ``routes`` has those of everything else."""

from greenroom.actors.house import House
from greenroom.actors.openapi import Query, Route, delete, get, post
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
        get(_ALL, door.list),
        post(_ALL, door.create, SceneInfo, 201, body=Scenario, required=("name", "members")),
        get(_ONE, door.info, SceneInfo),
        delete(_ONE, door.delete, status=204),
        get(f"{_ONE}/transcript", door.transcript, query=(_HEARD_BY,)),
        get(f"{_ONE}/entries", door.entries),
        post(f"{_ONE}/run", door.run, body=RunRequest, required=None, streams=True),
        post(f"{_ONE}/lines", door.tell, Line, 201, body=TellRequest, required=("text",)),
        post(f"{_ONE}/votes", door.vote, Tally, body=Vote, required=("question", "options")),
        get(f"{_ONE}/stream", sockets.get, status=101),
    ]
