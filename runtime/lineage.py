"""Which segments have whole chains. Pure."""

from collections.abc import Iterable

from greenroom.runtime.segments import Segment


def by_chain(segments: Iterable[Segment]) -> tuple[tuple[Segment, ...], tuple[str, ...]]:
    """Segments with whole chains, parents before children and older before newer; ids of the
    others."""
    children: dict[str | None, list[Segment]] = {}
    for segment in sorted(segments, key=lambda each: (each.created, each.id)):
        children.setdefault(segment.parent, []).append(segment)
    whole = children.pop(None, [])
    for parent in whole:
        for child in children.pop(parent.id, ()):
            if continues(parent, child):
                whole.append(child)
            else:
                children.setdefault("", []).append(child)
    return tuple(whole), tuple(each.id for lost in children.values() for each in lost)


def continues(parent: Segment, child: Segment) -> bool:
    """Whether a segment that names another as its parent begins where it can: within it, or at its
    end."""
    same_kin = (parent.namespace, parent.fingerprint) == (child.namespace, child.fingerprint)
    return same_kin and parent.start < child.start <= parent.end
