"""The frames of the WebSocket as a JSON schema, generated from their types."""

from typing import Any

import msgspec

from greenroom.actors.client_frames import (
    CancelFrame,
    HearFrame,
    PingFrame,
    ResumeFrame,
    SayFrame,
)
from greenroom.actors.frames import (
    SUBPROTOCOL,
    Cancelled,
    Done,
    Failed,
    HeardFrame,
    Pong,
    Progress,
    Started,
    Token,
    ToolFrame,
    UsageFrame,
)

_CLIENT = (SayFrame, HearFrame, CancelFrame, ResumeFrame, PingFrame)
_SERVER = (
    Started,
    Progress,
    Token,
    ToolFrame,
    UsageFrame,
    Done,
    Cancelled,
    HeardFrame,
    Failed,
    Pong,
)


def frames_schema() -> bytes:
    """JSON schema 2020-12: ``$defs`` has every frame, ``client`` and ``server`` among them."""
    references, components = msgspec.json.schema_components(
        (*_CLIENT, *_SERVER), ref_template="#/$defs/{name}"
    )
    given, sent = references[: len(_CLIENT)], references[len(_CLIENT) :]
    for kind in _CLIENT:
        components[kind.__name__]["required"] = ["type"]
        # What the server does not know it refuses; of what it sends, more may come.
        components[kind.__name__]["additionalProperties"] = False
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SUBPROTOCOL,
        "description": "The frames of the WebSocket, as docs/websocket.md describes them.",
        "anyOf": [{"$ref": "#/$defs/client"}, {"$ref": "#/$defs/server"}],
        "$defs": {"client": {"anyOf": list(given)}, "server": {"anyOf": list(sent)}, **components},
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"
