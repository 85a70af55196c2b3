"""Parcels that hold what no agent of ours has ever remembered."""

import hashlib
import io
from collections.abc import Sequence

import msgspec
import pytest

from greenroom.runtime.parcel import (
    BadParcel,
    Manifest,
    Parcel,
    packed_manifest,
    packed_seal,
    packed_segment,
)
from greenroom.runtime.segments import Segment, digest
from tests.backstage import payload_of, segment


def parcel(chain: Sequence[Segment]) -> Parcel:
    """A sealed one."""
    hasher = hashlib.sha256()
    manifest = Manifest(
        name="bob", system=None, model="m", fingerprint="f", num_segments=len(chain)
    )
    parts = list(packed_manifest(manifest, hasher))
    for number, each in enumerate(chain):
        parts += packed_segment(number, each, payload_of(each), hasher)
    return Parcel(io.BytesIO(b"".join([*parts, *packed_seal(hasher)])))


def test_segments_follow_each_other_where_they_can() -> None:
    root = segment(None, range(10), namespace="")
    within = segment(root, range(5), namespace="", start=4)
    last = segment(within, range(5), namespace="")
    assert [s.id for s, _ in parcel((root, within, last)).segments()] == [
        root.id,
        within.id,
        last.id,
    ]


@pytest.mark.parametrize("start", [0, 11, 50])
def test_a_segment_that_begins_outside_of_its_parent_is_refused(start: int) -> None:
    root = segment(None, range(10), namespace="")
    with pytest.raises(BadParcel, match="does not follow"):
        list(parcel((root, moved(segment(root, range(5), namespace=""), start))).segments())


def test_a_root_begins_at_the_beginning() -> None:
    with pytest.raises(BadParcel, match="does not follow"):
        list(parcel((moved(segment(None, range(5), namespace=""), 7),)).segments())


def moved(each: Segment, start: int) -> Segment:
    """Addressed as what it says."""
    there = msgspec.structs.replace(each, start=start)
    return msgspec.structs.replace(there, id=digest(there))
