"""The request's id: the caller's own when it is decent, else ours; told in every answer."""

import re
from uuid import uuid4

from aiohttp import web

REQUEST_ID = web.RequestKey("request_id", str)
REQUEST_ID_HEADER = "X-Request-Id"

_DECENT = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(given: str | None) -> str:
    """``given`` if it is short and plain enough to log and to echo, else a new one."""
    return given if given and _DECENT.fullmatch(given) else f"req_{uuid4().hex}"
