"""The OpenAPI document, generated from the routes and the types of what they take and give."""

import inspect
import re
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp.typedefs import Handler

from greenroom.actors.problems import ErrorBody

_VERSION = version("greenroom")
_PARAMETER = re.compile(r"{(\w+)(?::[^}]*)?}")
_REFUSALS = {
    400: "What was sent cannot be served; `param` names the field.",
    401: "A key is required, or the one given is wrong.",
    403: "The Host or Origin is not one that is served.",
    404: "There is no such model, agent or path.",
    408: "The body did not come in time.",
    409: "It contradicts what exists already.",
    413: "The body is too large.",
    429: "The agent has too much waiting; see Retry-After.",
    503: "Not now: stopping, loading or out of memory; see Retry-After.",
}


class Query(msgspec.Struct, frozen=True):
    """A parameter in a URL."""

    name: str
    kind: str
    words: str


class Route(msgspec.Struct, frozen=True):
    """A handler, where it is reached, and what it takes and gives.

    ``answer`` is the type of the JSON in a good answer (None: an object, or ``media`` that is not
    JSON); ``required`` are fields of ``body`` without which it is refused, None where there may be
    no body at all. With ``streams`` server-sent events come instead where they are asked for.
    """

    method: str
    path: str
    handler: Handler
    answer: type | None = None
    status: int = 200
    media: str = "application/json"
    body: type | None = None
    required: Sequence[str] | None = ()
    upload: bool = False
    query: Sequence[Query] = ()
    streams: bool = False


get = partial(Route, "GET")
post = partial(Route, "POST")
delete = partial(Route, "DELETE")


class ErrorDocument(msgspec.Struct, frozen=True):
    """What every refusal says."""

    error: ErrorBody


def document(routes: Sequence[Route]) -> bytes:
    """OpenAPI 3.1 as JSON."""
    types = {t for route in routes for t in (route.body, route.answer) if t is not None}
    named = sorted(types | {ErrorDocument}, key=lambda each: each.__name__)
    references, components = msgspec.json.schema_components(
        named, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(named, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    for route in routes:
        if route.body is not None and route.required:
            components[route.body.__name__]["required"] = list(route.required)
    told = {
        "openapi": "3.1.0",
        "info": {"title": "greenroom", "version": _VERSION},
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }
    return msgspec.json.encode(told)


def _operation(route: Route, schemas: dict[type, dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": (inspect.getdoc(route.handler) or "").partition("\n\n")[0].replace("\n", " "),
        "responses": {
            str(route.status): {"description": "Done.", **_content(route, schemas)},
            **{
                str(status): {
                    "description": words,
                    "content": {"application/json": {"schema": schemas[ErrorDocument]}},
                }
                for status, words in _REFUSALS.items()
            },
        },
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.path)
    ] + [
        {"name": q.name, "in": "query", "description": q.words, "schema": {"type": q.kind}}
        for q in route.query
    ]
    if parameters:
        told["parameters"] = parameters
    if route.body is not None:
        told["requestBody"] = {
            "required": route.required is not None,
            "content": {"application/json": {"schema": schemas[route.body]}},
        }
    elif route.upload:
        told["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    return told


def _content(route: Route, schemas: dict[type, dict[str, Any]]) -> dict[str, Any]:
    if route.status == 101:
        return {}
    if route.answer is not None:
        content: dict[str, Any] = {route.media: {"schema": schemas[route.answer]}}
    else:
        content = {route.media: {}}
    if route.streams:
        content["text/event-stream"] = {}
    return {"content": content}
