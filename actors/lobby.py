"""The small answers: health, models, and the document that describes them all."""

from aiohttp import web

from greenroom.actors.answers import json_answer
from greenroom.actors.house import House
from greenroom.runtime.errors import Unavailable


class Lobby:
    """The handlers for the small answers of one house."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def health(self, _request: web.Request) -> web.Response:
        """The process answers."""
        return json_answer({"status": "ok"})

    async def ready(self, _request: web.Request) -> web.Response:
        """200 once turns are taken, 503 before and while draining."""
        if not self._house.ready():
            raise Unavailable("no turns are taken now")
        return json_answer({"status": "ready", "model": self._house.model.name})

    async def models(self, _request: web.Request) -> web.Response:
        """The one served model, as a list."""
        return json_answer({"object": "list", "data": [self._model()]})

    async def model(self, request: web.Request) -> web.Response:
        """The served model under any of its names. Raises ``NotFound``."""
        self._house.resolve_model(request.match_info["id"])
        return json_answer(self._model())

    def _model(self) -> dict[str, object]:
        card = self._house.model
        return {
            "id": card.name,
            "object": "model",
            "created": card.created,
            "owned_by": "greenroom",
            "greenroom": {"hf_id": card.hf_id, "context_window": card.context_window},
        }
