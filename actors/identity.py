"""Who is speaking: how a request names its agent."""

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.names import validate_name

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
