"""Rooms of a tiny model for the tests of Python's door, near and far."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from greenroom.actors.app import open_house
from greenroom.actors.http import serve_http
from greenroom.actors.room import Room, connect_room
from greenroom.runtime.layers import load_settings
from greenroom.runtime.system import System

T = TypeVar("T")
KEY = "sesame"


class Rooms:
    """One house for a module's tests, its ``url``, and a loop; ``room(kind)`` is a way into it."""

    url: str

    def __init__(self, home: Path, model: Path, **settings: str) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._doors = AsyncExitStack()
        overrides = {
            "home": str(home),
            "model.name": str(model),
            "stage.schedule": "fixed",
            "memory.codec": "float",  # a first answer and one from memory are then the same
            "server.api_key": KEY,
            "server.admin_key": KEY,
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        self._settings = load_settings(environ={}, overrides=overrides).settings
        self._rooms: dict[str, Room] = {}
        self.run(self._open())

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(self._limited(scenario))

    def room(self, kind: str) -> Room:
        return self._rooms[kind]

    def close(self) -> None:
        self.run(self._doors.aclose())
        self._runner.close()

    async def _limited(self, scenario: Coroutine[Any, Any, T]) -> T:
        async with asyncio.timeout(100):
            return await scenario

    async def _open(self) -> None:
        enter = self._doors.enter_async_context
        house = await enter(open_house(self._settings))
        self.url = await enter(serve_http(house, "127.0.0.1", 0))
        self._rooms["local"] = Room(house, await enter(System()))
        far = connect_room(self.url, key=KEY, admin_key=KEY)
        self._rooms["remote"] = await enter(far)
