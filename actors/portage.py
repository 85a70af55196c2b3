"""Carrying an agent from one home to another: its memory out as a file, and in again."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterable, AsyncIterator

from greenroom.actors.agent_messages import AgentKey, Arrive
from greenroom.actors.company import Company
from greenroom.actors.director_messages import DirectorMessage, Wake
from greenroom.actors.fetching import fetch
from greenroom.actors.keeper_messages import Doom, Drop, Keep, Outline, Settle
from greenroom.actors.roster import new_salt, scope_of, taken
from greenroom.actors.store_messages import Evict, FindAgent, Known, Recall, Unstored
from greenroom.actors.whole import whole
from greenroom.runtime.agent_records import AgentInfo, SpawnRequest
from greenroom.runtime.codec import BadPayload, Payload, check
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.names import validate_name
from greenroom.runtime.parcel import (
    BadParcel,
    Manifest,
    OtherModel,
    Parcel,
    packed_manifest,
    packed_seal,
    packed_segment,
)
from greenroom.runtime.ref import Ref
from greenroom.runtime.segments import Segment, readdressed

IN_MEMORY_BYTES = 1 << 20
"""Of a file that is taken in; what is larger waits on disk until it is whole."""


async def exported(company: Company, model: str, known: Known) -> AsyncIterator[bytes]:
    """The agent's parcel, piece by piece; one segment's bytes are in memory at a time."""
    info = known.info
    chain = await company.store.ask(Recall(info.head))
    if any(piece.segment.fingerprint != company.facts.fingerprint for piece in chain):
        raise InvalidRequest(
            f"agent {info.name!r} was last an agent of another model; serve that to export it",
            param="agent",
            code="other_model",
        )
    manifest = Manifest(
        name=info.name,
        system=info.system,
        model=model,
        fingerprint=company.facts.fingerprint,
        num_segments=len(chain),
        ttl_s=info.ttl_s,
        overflow=info.overflow,
        share=info.share,
        frame=known.frame,
    )
    hasher = hashlib.sha256()
    for data in packed_manifest(manifest, hasher):
        yield data
    parent: str | None = None
    for number, piece in enumerate(chain):
        fetched = await fetch(company.keeper, [piece.segment.id])
        payload = fetched.payloads[0] if fetched.payloads else None
        segment = readdressed(piece.segment, "", parent)
        parent = segment.id
        for data in await asyncio.to_thread(_packed, number, segment, payload, hasher):
            yield data
    for data in packed_seal(hasher):
        yield data


def _packed(
    number: int, segment: Segment, payload: Payload | None, hasher: "hashlib._Hash"
) -> list[bytes]:
    return list(packed_segment(number, segment, payload, hasher))


async def imported(
    company: Company,
    director: Ref[DirectorMessage],
    namespace: str,
    name: str | None,
    chunks: AsyncIterable[bytes],
) -> AgentInfo:
    """Unpack a parcel. Raises BadParcel, ParcelTooNew, OtherModel, or Conflict for the name."""
    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
        try:
            async for chunk in chunks:
                await whole(asyncio.to_thread(file.write, chunk))
            parcel = await asyncio.to_thread(Parcel, file)
            key = await _look(company, namespace, name, parcel)
            return await whole(_settle(company, director, key, parcel))
        finally:
            await whole(asyncio.to_thread(file.close))  # which may write


async def _look(company: Company, namespace: str, name: str | None, parcel: Parcel) -> AgentKey:
    """Which agent it is to be. Raises what is wrong with that, before anything is written."""
    manifest = parcel.manifest
    if manifest.fingerprint != company.facts.fingerprint:
        raise OtherModel(manifest.model)
    key = AgentKey(namespace, validate_name(name or manifest.name))
    if await company.store.ask(FindAgent(key)) is not None:
        raise taken(key.name)
    await asyncio.to_thread(_look_through, parcel, company)
    return key


def _look_through(parcel: Parcel, company: Company) -> None:
    """Refuse what could not be decoded, before anything is written. Blocking."""
    for _, payload in parcel.segments():
        try:
            if payload is not None:
                check(company.facts.spec, payload)
        except BadPayload as error:
            raise BadParcel(error) from error


async def _settle(
    company: Company, director: Ref[DirectorMessage], key: AgentKey, parcel: Parcel
) -> AgentInfo:
    manifest = parcel.manifest
    wanted = SpawnRequest(
        namespace=key.namespace,
        name=key.name,
        system=manifest.system,
        ttl_s=manifest.ttl_s,
        overflow=manifest.overflow,
        share=manifest.share,
    )
    salt = new_salt(wanted)
    segments: list[Segment] = []
    kept: list[str] = []
    try:
        await _keep(company, scope_of(key.namespace, salt), parcel, segments, kept)
        # Only now is it there for others, and with all of its memory.
        agent = await director.ask(Wake(key, enrol=False))
        info = await agent.ask(Arrive(wanted, salt, tuple(segments), manifest.frame))
    except Exception:
        company.keeper.tell(Settle(tuple(kept)))
        await _withdraw(company, tuple(kept))
        raise
    company.keeper.tell(Settle(tuple(kept)))
    if bare := tuple(each.id for each in segments if each.id not in kept):
        held = await company.keeper.ask(Outline(bare))
        gone = tuple(each for each, link in zip(bare, held, strict=True) if link is None)
        await company.store.ask(Evict(gone))
    return info


async def _keep(
    company: Company, scope: str, parcel: Parcel, segments: list[Segment], kept: list[str]
) -> None:
    """Write the segments below their new addresses, one at a time. Of those that had been evicted
    where they come from only what they say is known: they are not among the ``kept``."""
    found = parcel.segments()
    while (entry := await asyncio.to_thread(next, found, None)) is not None:
        segment, payload = entry
        parent = segments[-1].id if segments else None
        segments.append(readdressed(segment, scope, parent))
        if payload is not None:
            kept.append(segments[-1].id)
            await company.keeper.ask(Keep(((segments[-1], payload),)))


async def _withdraw(company: Company, ids: tuple[str, ...]) -> None:
    """Delete what was written for nobody; what the index has is somebody's."""
    await company.keeper.ask(Doom(ids))
    await company.keeper.ask(Drop(await company.store.ask(Unstored(ids))))
