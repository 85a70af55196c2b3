"""What callers send to the routes of agents, read and checked."""

import msgspec

from greenroom.actors.fields import at_least, decode_known, refuse_unknown, within
from greenroom.actors.identity import named
from greenroom.actors.saying import Saying, checked_key, read_saying
from greenroom.runtime.agent_records import HearRequest, Overflow, Share, SpawnRequest
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import TurnRequest

MAX_PAGE = 1000
DAY_S = 86_400.0
MAX_TTL_S = 3650 * DAY_S


class SpawnBody(msgspec.Struct):
    """The agent that is wanted; what is left out stays as it is, or is as by default."""

    name: str | None = None
    system: str | None = None
    model: str | None = None
    ttl_s: float | None = None
    overflow: Overflow | None = None
    share: Share | None = None


class SayBody(Saying):
    """Something to be answered. With ``stream`` the answer comes as server-sent events."""

    stream: bool = False


class HearBody(msgspec.Struct):
    """Something that need not be answered; ``name`` is whose words these are."""

    content: str | None = None
    name: str | None = None
    key: str | None = None


class ForkBody(msgspec.Struct):
    """The new agent's name, and the segment ``at`` which it is to stand (None: where this does)."""

    name: str | None = None
    at: str | None = None


class RollbackBody(msgspec.Struct):
    """The segment ``to`` go back to, by its id or a beginning of it that only one has."""

    to: str | None = None


class PinBody(msgspec.Struct):
    """The segment that is meant; None where the agent stands."""

    segment: str | None = None


class Page(msgspec.Struct, frozen=True):
    """Part of a list: at most ``limit`` names that begin with ``prefix``, from behind ``after``."""

    limit: int
    after: str
    prefix: str


def read_spawn(body: bytes, *, namespace: str) -> SpawnRequest:
    """The agent that is wanted. Raises ``InvalidRequest`` that names the field at fault."""
    spawn = decode_known(body, SpawnBody)
    within("ttl_s", spawn.ttl_s, 0.0, MAX_TTL_S, above=True)
    return SpawnRequest(
        namespace=namespace,
        name=named(_given("name", spawn.name), "name"),
        system=spawn.system,
        model=spawn.model,
        ttl_s=spawn.ttl_s,
        overflow=spawn.overflow,
        share=spawn.share,
    )


def read_say(body: bytes, *, agent: str, namespace: str) -> tuple[SayBody, TurnRequest]:
    """What is said, and the turn that it asks for. Raises ``InvalidRequest``."""
    say = decode_known(body, SayBody)
    return say, read_saying(say, agent=agent, namespace=namespace)


def read_hear(body: bytes, *, agent: str, namespace: str) -> HearRequest:
    """What is to be heard. Raises ``InvalidRequest``."""
    hear = decode_known(body, HearBody)
    return HearRequest(
        agent=agent,
        content=_given("content", hear.content),
        name=hear.name,
        namespace=namespace,
        key=checked_key(hear.key),
    )


def read_fork(body: bytes) -> tuple[str, str | None]:
    """The new agent's name, and where it is to stand. Raises ``InvalidRequest``."""
    fork = decode_known(body, ForkBody)
    return named(_given("name", fork.name), "name"), fork.at


def read_rollback(body: bytes) -> str:
    """The segment to go back to. Raises ``InvalidRequest``."""
    return _given("to", decode_known(body, RollbackBody).to)


def read_pin(body: bytes) -> str | None:
    """The segment to pin or unpin; an empty body means where the agent stands."""
    return decode_known(body, PinBody).segment if body else None


def read_page(query: dict[str, str]) -> Page:
    """The part of a list that is asked for. Raises ``InvalidRequest``."""
    refuse_unknown(query, Page.__struct_fields__)
    try:
        limit = int(query.get("limit", "100"))
    except ValueError:
        raise InvalidRequest(
            "limit must be a number.", param="limit", code="invalid_type"
        ) from None
    at_least("limit", limit, 1)
    return Page(min(limit, MAX_PAGE), query.get("after", ""), query.get("prefix", ""))


def _given(field: str, value: str | None) -> str:
    if value is None:
        raise InvalidRequest(f"{field} is missing.", param=field, code="missing_value")
    return value
