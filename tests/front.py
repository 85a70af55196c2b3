"""A whole house of a tiny model behind its real HTTP door, and clients that keep the history."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from greenroom.actors.app import open_house
from greenroom.actors.http import serve_http
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.layers import load_settings

Message = dict[str, Any]


class Reply(msgspec.Struct, frozen=True):
    """What a client reads: the body, and who answered by the headers."""

    body: dict[str, Any]
    agent: str
    head: str

    @property
    def message(self) -> Message:
        message: Message = self.body["choices"][0]["message"]
        return message

    @property
    def content(self) -> str:
        return self.message["content"] or ""

    @property
    def reasoning(self) -> str:
        return str(self.message.get("reasoning_content", ""))

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return int(self.body["usage"]["prompt_tokens"])

    @property
    def cached(self) -> int:
        """How many of them needed no computing."""
        return int(self.body["usage"]["prompt_tokens_details"]["cached_tokens"])

    @property
    def known(self) -> int:
        """Tokens of prompt and answer: what can be cached of it in the next turn."""
        return int(self.body["usage"]["total_tokens"])


class Front:
    """The door of a house, and the house."""

    def __init__(self, house: Playhouse, http: aiohttp.ClientSession) -> None:
        self.house = house
        self.http = http

    async def post(
        self, messages: Sequence[Message], headers: dict[str, str] | None = None, **body: Any
    ) -> tuple[int, Any]:
        """A chat request: status and body."""
        asked = {"messages": list(messages), "max_tokens": 8, "temperature": 0, **body}
        async with self.http.post(
            "/v1/chat/completions", json=asked, headers=headers or {}
        ) as answer:
            return answer.status, await answer.json()

    async def ask(
        self, messages: Sequence[Message], headers: dict[str, str] | None = None, **body: Any
    ) -> Reply:
        """A chat request that is answered."""
        asked = {"messages": list(messages), "max_tokens": 8, "temperature": 0, **body}
        async with self.http.post(
            "/v1/chat/completions", json=asked, headers=headers or {}
        ) as answer:
            told = await answer.json()
            assert answer.status == 200, told
            return Reply(told, answer.headers["X-Agent-Name"], answer.headers["X-Agent-Head"])


@asynccontextmanager
async def fronted(home: Path, model: Path, **changes: str) -> AsyncIterator[Front]:
    """A house on ``home``, its door on a free port; ``section__key`` changes a setting."""
    overrides = {"home": str(home), "model.name": str(model), "memory.codec": "float"}
    overrides |= {name.replace("__", "."): value for name, value in changes.items()}
    settings = (await asyncio.to_thread(load_settings, overrides=overrides)).settings
    async with (
        open_house(settings) as house,
        serve_http(house, "127.0.0.1", 0) as url,
        aiohttp.ClientSession(url) as http,
    ):
        yield Front(house, http)


def said(role: str, content: str, **more: Any) -> Message:
    """A message."""
    return {"role": role, "content": content, **more}
