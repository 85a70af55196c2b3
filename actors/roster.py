"""Who there is: every agent as the index knows it, who stands where, and who has pinned what."""

import secrets
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec

from greenroom.actors.agent_messages import AgentKey
from greenroom.runtime.agent_records import Overflow, SpawnRequest
from greenroom.runtime.errors import Conflict, InvalidRequest, NotFound
from greenroom.runtime.frame import PLAIN, Frame
from greenroom.runtime.rows import AgentRow, PinRow


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an agent's row holds besides: see ``SpawnRequest``.

    ``salt`` keeps the segments of an agent apart that shares nothing; its forks have the same.
    ``frame`` is what its prompts are rendered with besides its messages, as of its last turn.
    """

    ttl_s: float | None = None
    overflow: Overflow | None = None
    salt: str | None = None
    frame: Frame = PLAIN


class Roster:
    """Rows by agent. What is to change is made here and written to the index before it is known.

    ``fingerprint`` is the served model's; ``now`` gives seconds since the epoch.
    """

    def __init__(self, fingerprint: str, now: Callable[[], float] = time.time) -> None:
        self._fingerprint = fingerprint
        self._now = now
        self._rows: dict[AgentKey, AgentRow] = {}
        self._heads: dict[str, dict[AgentKey, None]] = {}
        self._pins: dict[tuple[AgentKey, str], PinRow] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: AgentKey) -> AgentRow | None:
        """The row of an agent; None if there is none."""
        return self._rows.get(key)

    def find(self, key: AgentKey) -> AgentRow:
        """The row of an agent. Raises NotFound."""
        row = self._rows.get(key)
        if row is None:
            raise unknown(key.name)
        return row

    def of(self, namespace: str) -> list[AgentRow]:
        """Every agent of a namespace, by name."""
        rows = [row for key, row in self._rows.items() if key.namespace == namespace]
        return sorted(rows, key=lambda row: row.name)

    def standing(self, segments: Iterable[str]) -> AgentKey | None:
        """Whoever stands at the first of the segments at which anybody does, the longest there."""
        found = next((self._heads[each] for each in segments if each in self._heads), {})
        return next(iter(found), None)

    def know(self, row: AgentRow) -> None:
        """This is how the index has an agent now."""
        key = AgentKey(row.namespace, row.name)
        before = self._rows.get(key)
        if before is None or before.head != row.head:
            self._leave(key)
            if row.head is not None:
                self._heads.setdefault(row.head, {})[key] = None
        self._rows[key] = row

    def drop(self, key: AgentKey) -> None:
        """The index has no such agent any more."""
        self._leave(key)
        self._rows.pop(key, None)
        self._pins = {at: pin for at, pin in self._pins.items() if at[0] != key}

    def pin(self, pin: PinRow) -> None:
        """The index has this pin."""
        self._pins[AgentKey(pin.namespace, pin.agent), pin.segment] = pin

    def unpin(self, key: AgentKey, segment: str) -> None:
        """The index has this pin no more."""
        self._pins.pop((key, segment), None)

    def pinned(self, key: AgentKey) -> frozenset[str]:
        """The segments that an agent has pinned."""
        return frozenset(segment for owner, segment in self._pins if owner == key)

    def all_pinned(self) -> frozenset[str]:
        """The segments that anybody has pinned."""
        return frozenset(segment for _, segment in self._pins)

    def overdue(self) -> tuple[AgentKey, ...]:
        """The agents that nobody has used for as long as they may be unused."""
        return tuple(key for key, row in self._rows.items() if self.is_overdue(row))

    def is_overdue(self, row: AgentRow) -> bool:
        """Whether an agent's time is over."""
        ttl_s = terms(row).ttl_s
        return ttl_s is not None and row.last_used + ttl_s <= self._now()

    def fresh(self, key: AgentKey) -> AgentRow:
        """The row of an agent that begins now."""
        now = self._now()
        return AgentRow(
            namespace=key.namespace,
            name=key.name,
            head=None,
            system=None,
            fingerprint=self._fingerprint,
            created=now,
            last_used=now,
        )

    def moved(self, key: AgentKey, head: str | None, frame: Frame | None = None) -> AgentRow:
        """The row of an agent that stands at ``head`` from now on, within another ``frame`` if
        one is given."""
        row = self._rows.get(key) or self.fresh(key)
        if frame is not None and frame != terms(row).frame:
            extras = _plain(msgspec.structs.replace(terms(row), frame=frame))
            row = msgspec.structs.replace(row, extras=extras)
        return msgspec.structs.replace(
            row, head=head, fingerprint=self._fingerprint, last_used=self._now()
        )

    def dates(self, namespace: str) -> tuple[str, ...]:
        """The dates that a namespace's agents are pinned to, the newest first, each once."""
        dates = {terms(row).frame.date for row in self.of(namespace)} - {""}
        return tuple(sorted(dates, key=datetime.fromisoformat, reverse=True))

    def enrolled(self, wanted: SpawnRequest) -> AgentRow:
        """The row of the agent that is wanted. Raises Conflict where it exists as another."""
        row = self._rows.get(AgentKey(wanted.namespace, wanted.name))
        if row is None:
            return self._begun(wanted, new_salt(wanted))
        self._check(row, wanted)
        has = terms(row)
        kept = msgspec.structs.replace(
            has,
            ttl_s=has.ttl_s if wanted.ttl_s is None else wanted.ttl_s,
            overflow=has.overflow if wanted.overflow is None else wanted.overflow,
        )
        return row if kept == has else msgspec.structs.replace(row, extras=_plain(kept))

    def adopted(
        self, wanted: SpawnRequest, salt: str | None, head: str | None, frame: Frame
    ) -> AgentRow:
        """The row of a new agent that comes with its memory. Raises Conflict."""
        if AgentKey(wanted.namespace, wanted.name) in self._rows:
            raise taken(wanted.name)
        return msgspec.structs.replace(self._begun(wanted, salt, frame), head=head)

    def branched(self, key: AgentKey, name: str, head: str | None) -> AgentRow:
        """The row of a new agent that stands at ``head``, otherwise as ``key``. Raises Conflict."""
        other = AgentKey(key.namespace, name)
        if other in self._rows:
            raise taken(name)
        row = self.find(key)
        return msgspec.structs.replace(
            self.fresh(other), head=head, system=row.system, extras=row.extras
        )

    def scope(self, row: AgentRow) -> str:
        """Within what an agent's segments are addressed and matched."""
        return scope_of(row.namespace, terms(row).salt)

    def _begun(self, wanted: SpawnRequest, salt: str | None, frame: Frame = PLAIN) -> AgentRow:
        extras = _plain(Terms(wanted.ttl_s, wanted.overflow, salt, frame))
        row = self.fresh(AgentKey(wanted.namespace, wanted.name))
        return msgspec.structs.replace(row, system=wanted.system, extras=extras)

    def _check(self, row: AgentRow, wanted: SpawnRequest) -> None:
        share = "namespace" if terms(row).salt is None else "none"
        for param, differs in (
            ("system", wanted.system is not None and wanted.system != row.system),
            ("model", wanted.model is not None and row.fingerprint != self._fingerprint),
            ("share", wanted.share is not None and wanted.share != share),
        ):
            if differs:
                what = {"system": "system prompt", "share": "way to share"}.get(param, param)
                raise Conflict(
                    f"agent {row.name!r} exists with another {what}; "
                    "choose another name, or spawn it without one",
                    param=param,
                    code="agent_exists",
                )

    def _leave(self, key: AgentKey) -> None:
        before = self._rows.get(key)
        if before is None or before.head is None:
            return
        there = self._heads[before.head]
        del there[key]
        if not there:
            del self._heads[before.head]


def terms(row: AgentRow) -> Terms:
    """What a row holds besides; what a later greenroom has put there is left alone."""
    return msgspec.convert(row.extras, Terms)


def new_salt(wanted: SpawnRequest) -> str | None:
    """What keeps a new agent's segments apart, if it is to share nothing."""
    return secrets.token_hex(8) if wanted.share == "none" else None


def scope_of(namespace: str, salt: str | None) -> str:
    """Within what the segments of an agent with this salt are addressed and matched."""
    return namespace if salt is None else f"{namespace}/{salt}"


def taken(name: str) -> Conflict:
    """An agent of this name is there already."""
    return Conflict(
        f"agent {name!r} exists already; choose another name", param="name", code="agent_exists"
    )


def no_response(name: str) -> InvalidRequest:
    """The error for a turn that is to follow a segment which its caller has not."""
    return InvalidRequest(
        f"nothing is remembered under {name!r}: give the head that an answer has told "
        "(X-Agent-Head, or greenroom.head in its body)",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def unknown(name: str) -> NotFound:
    """There is no agent of this name."""
    return NotFound(f"there is no agent {name!r} here", param="agent", code="agent_not_found")


def _plain(terms: Terms) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(terms)
    return plain
