"""JSON answers."""

from collections.abc import Mapping

import msgspec
from aiohttp import web

HEAD_HEADER = "X-Agent-Head"


def json_answer(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """``body`` as JSON; a Struct by its fields."""
    return web.Response(
        body=msgspec.json.encode(body),
        status=status,
        headers=headers,
        content_type="application/json",
    )
