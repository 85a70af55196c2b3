"""A store at rest, looked at file by file and row by row, and mended.

For a store that no server holds: whoever calls has it locked by an open ``Index``.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import msgspec

from greenroom.runtime.index import Index
from greenroom.runtime.mending import load
from greenroom.runtime.rows import Contents
from greenroom.runtime.segment_file import Damaged, Foreign, Unreadable, VaultError
from greenroom.runtime.segments import Segment
from greenroom.runtime.vault import Found, Vault

Fault = Literal[
    "damaged file",  # truncated or changed
    "foreign file",  # no segment, or of a format or codec that this greenroom does not know
    "foreign model",  # a sound segment of a model that nobody in the index has
    "wrong model",  # a segment goes on from one of another model
    "unreadable file",  # the system does not give it
    "missing file",  # the index says that it is there
    "missing parent",  # a segment whose chain is broken before it
    "missing head",  # an agent stands on a segment that is not there
    "damaged row",  # the index's own record of a segment is not what it was
    "half-written file",  # a write was interrupted
    "unowned file",  # sound, but of no row: its turn was never committed, or it was evicted
    "set aside",  # found damaged before, and kept for whoever wants to look
]
LEFTOVERS: frozenset[Fault] = frozenset(
    {"foreign model", "half-written file", "unowned file", "set aside"}
)
"""They take room and do no harm: crashes and other models leave them, nothing ever loads them, and
rounds of the custodian take them away."""


class Finding(msgspec.Struct, frozen=True):
    """What is wrong with which segment (by id), file (by its path in the store) or agent."""

    fault: Fault
    subject: str
    detail: str

    @property
    def harmless(self) -> bool:
        """A leftover."""
        return self.fault in LEFTOVERS


Progress = Callable[[int, int], object]
"""Told how many files of how many have been read."""


def verify(index: Index, vault: Vault, progress: Progress) -> tuple[Finding, ...]:
    """Read every file and every row; nothing is changed."""
    contents = index.load_all()
    files = tuple(vault.survey())
    return (*_in_index(index, contents, vault), *_in_files(contents, files, vault, progress))


def repair(index: Index, vault: Vault, findings: Iterable[Finding]) -> None:
    """Mend what ``verify`` has found.

    Damaged and foreign files are set aside, interrupted writes removed. Rows are taken from sound
    files; an agent whose head is lost goes back to the deepest segment before it that is there.
    Bytes that are lost are noted as such: the next turn computes them anew.
    """
    load(index, lambda each: recall(vault, each))
    known = {each.id for each in index.load_all().segments}
    for finding in findings:
        segment_id = _segment_of(finding.subject)
        if finding.fault in ("damaged file", "foreign file", "unreadable file"):
            vault.set_aside(finding.subject)
        elif finding.fault in ("missing parent", "wrong model") and segment_id not in known:
            vault.quarantine(segment_id)
    vault.clear_temporary()
    there = set(vault.ids())
    index.unstore(row.id for row in index.rows().segments if row.stored and row.id not in there)


def recall(vault: Vault, segment_id: str) -> Segment | None:
    """What a sound file says of its segment."""
    try:
        return vault.read(segment_id)[0]
    except VaultError:
        return None


def _in_index(index: Index, contents: Contents, vault: Vault) -> Iterator[Finding]:
    known = {each.id: each for each in contents.segments}
    parents = {row.id: row.parent for row in index.rows().segments}
    for each in contents.broken:
        parent = parents[each]
        if parent is not None and parent not in known:
            yield Finding("missing parent", each, f"it goes on from {parent}")
            continue
        said = recall(vault, each)
        if said and parent and said.fingerprint != known[parent].fingerprint:
            yield Finding("wrong model", each, f"it is of model {said.fingerprint}")
        else:
            yield Finding("damaged row", each, "its record in the index has changed")
    for agent in contents.agents:
        if agent.head is not None and agent.head not in parents:
            yield Finding("missing head", agent.name, f"it stands on {agent.head}")


def _in_files(
    contents: Contents, files: tuple[Found, ...], vault: Vault, progress: Progress
) -> Iterator[Finding]:
    known = {each.id for each in contents.segments}
    models = {each.fingerprint for each in contents.agents}
    models |= {each.fingerprint for each in contents.segments}
    rows = known | set(contents.broken)
    stored = rows - contents.evicted
    there = {f.segment_id for f in files if f.segment_id is not None and not f.state}
    unowned: list[tuple[str, Segment]] = []
    progress(0, len(files))
    with ThreadPoolExecutor(4, "greenroom-verify") as pool:
        looked = pool.map(lambda each: _look(each, vault), files)
        for number, (file, found) in enumerate(zip(files, looked, strict=True), 1):
            progress(number, len(files))
            if isinstance(found, Finding):
                yield found
            elif found is not None and found.id not in stored:
                unowned.append((file.path, found))
    for path, segment in unowned:
        if segment.fingerprint not in models:
            yield Finding("foreign model", path, f"it is of model {segment.fingerprint}")
        else:
            yield Finding("unowned file", path, "no row of the index says that it is stored")
    for each in sorted(stored - there):
        yield Finding("missing file", each, "the index has it, the disk has not")


def _look(file: Found, vault: Vault) -> Finding | Segment | None:
    """What is wrong with a file by itself, or which segment it is."""
    if file.path.startswith("tmp/"):
        return Finding("half-written file", file.path, f"{file.num_bytes} bytes")
    if file.path.startswith("quarantine/"):
        return Finding("set aside", file.path, f"{file.num_bytes} bytes")
    if file.segment_id is None:
        return Finding("foreign file", file.path, "no segment has this name")
    try:
        if file.state:
            vault.read_state(file.segment_id)
            return None
        return vault.read(file.segment_id)[0]
    except Damaged as error:
        return Finding("damaged file", file.path, str(error))
    except Foreign as error:
        return Finding("foreign file", file.path, str(error))
    except Unreadable as error:
        return Finding("unreadable file", file.path, str(error))
    except VaultError:  # it has just gone
        return None


def _segment_of(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]
