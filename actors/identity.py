"""Who is speaking: how a request names its agent."""

import hashlib
from collections.abc import Mapping

import msgspec

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.names import validate_name
from greenroom.runtime.records import SessionHint

AGENT_HEADER = "X-Agent-Name"


def named(name: str, param: str) -> str:
    """``name`` normalised; raises ``InvalidRequest`` with the caller's own ``param`` if illegal."""
    try:
        return validate_name(name)
    except InvalidRequest as error:
        raise InvalidRequest(str(error), param=param, code=error.code) from None


def speaker(
    header: str | None, field: str | None, model: str | None
) -> tuple[str | None, str | None]:
    """The agent that a chat request names, if any, and the model it asks for.

    The first that is given counts: the header ``X-Agent-Name``, the body's ``agent``, then the
    ``name@`` in front of the model, for clients that can set nothing else. No name means: whoever
    remembers the longest prefix. Raises ``InvalidRequest`` for an illegal name.
    """
    prefix, at, rest = (model or "").rpartition("@")
    if at:
        model = rest or None
    if header is not None:
        return named(header, AGENT_HEADER), model
    if field is not None:
        return named(field, "agent"), model
    if at:
        return named(prefix, "model"), model
    return None, model


class _Family(msgspec.Struct, frozen=True):
    """How one family of clients says who is speaking: header names, the first that is there counts.

    ``part`` tells agents of one ``session`` apart, ``parent`` is the part (or the session, where
    there are no parts) that this one was branched off.
    """

    prefix: str
    session: tuple[str, ...]
    part: str | None = None
    parent: str | None = None
    final: str | None = None


# Claude Code names subagents within a session, and nobody when the main agent speaks; Codex names
# threads (and once wrote its session with an underscore); OpenCode and OpenRouter give every agent
# a session of its own, and so does Dynamo, which also says which request of a session is the last.
_FAMILIES = (
    _Family(
        "claude-code",
        ("x-claude-code-session-id",),
        "x-claude-code-agent-id",
        "x-claude-code-parent-agent-id",
    ),
    _Family("codex", ("session-id", "session_id"), "thread-id", "x-codex-parent-thread-id"),
    _Family(
        "session",
        ("x-session-id", "x-session-affinity", "x-opencode-session"),
        parent="x-parent-session-id",
    ),
    _Family(
        "dynamo",
        ("x-dynamo-session-id",),
        parent="x-dynamo-parent-session-id",
        final="x-dynamo-session-final",
    ),
)


def session_hint(
    headers: Mapping[str, str], cache_key: str | None = None, conversation: str | None = None
) -> SessionHint | None:
    """What a client tells of its own accord about who is speaking; None if it tells nothing.

    ``headers`` are looked up by names in lower case; a ``conversation`` is a session where they
    tell of none. Values are the client's own: what makes no legal name is hashed.
    """
    for family in _FAMILIES:
        session = next((v for name in family.session if (v := _value(headers, name))), None)
        if session is None:
            continue
        part, parent = _value(headers, family.part), _value(headers, family.parent)
        name = _name(family.prefix, session, part)
        if family.part is None:
            origin = _name(family.prefix, parent, None) if parent else None
        else:
            # A subagent without a parent's name was branched off the session's main agent.
            origin = _name(family.prefix, session, parent) if part or parent else None
        final = (_value(headers, family.final) or "").lower() in ("true", "1")
        return SessionHint(
            name=name,
            parent=origin if origin != name else None,
            final=final,
            cache_key=cache_key,
        )
    if conversation:
        return SessionHint(name=_name("conversation", conversation, None), cache_key=cache_key)
    return SessionHint(cache_key=cache_key) if cache_key else None


def _value(headers: Mapping[str, str], name: str | None) -> str | None:
    return (headers.get(name, "").strip() or None) if name else None


def _name(prefix: str, session: str, part: str | None) -> str:
    name = ":".join((prefix, session, *([part] if part else [])))
    try:
        return validate_name(name)
    except InvalidRequest:
        pair = msgspec.json.encode((session, part))
        return f"{prefix}:~{hashlib.blake2b(pair, digest_size=16).hexdigest()}"
