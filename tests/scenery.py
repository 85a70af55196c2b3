"""Scenes of whole agents, and what is left of one on disk: in the ledger and in memories."""

from collections import Counter
from pathlib import Path
from typing import Any

from greenroom.runtime.index import Index
from greenroom.runtime.ledger import Ledger, SceneRow
from greenroom.runtime.scenario import Member, Phase, Scenario, Vote
from greenroom.runtime.scene_file import checked
from greenroom.runtime.segments import chain, transcript
from greenroom.runtime.transcript import (
    Call,
    Cast,
    Counted,
    Cue,
    Entry,
    Line,
    Silence,
    Transcript,
    reaches,
)

NAMES = ("ann", "bob", "cid")
PLAY = checked(
    Scenario(
        name="play",
        members=tuple(Member(name=name, system=f"You are {name}. Be brief.") for name in NAMES),
        phases=(
            Phase(opening="The curtain rises.", whispers={"cid": "The wolf is near."}, turns=4),
            Phase(order="broadcast", turns=3, audience=("ann", "bob")),
            Phase(
                order="free",
                turns=4,
                vote=Vote(question="What shall we drink?", options=("tea", "coffee")),
            ),
        ),
        max_tokens=12,
        temperature=0.0,
        seed=1,
    )
)
"""Three members, two at once where the order lets them, a secret, a whispered phase and a vote."""


class Remains(Transcript):
    """A scene as it is on disk once its house has gone, and what its members remember."""

    def __init__(self, store: Path, scenario: Scenario, namespace: str = "") -> None:
        row, entries = _written(store, scenario.name, namespace)
        super().__init__(scenario, entries)
        self.uid = row.uid
        self.memories = _memories(store, namespace)

    def check(self) -> None:
        """Nothing is lost or said twice, every cue has one end, and secrets are kept."""
        assert self.ended is not None
        ends = [e for e in self.entries if isinstance(e, Line | Silence | Call | Cast)]
        cues = {e.number: e for e in self.entries if isinstance(e, Cue)}
        assert sorted(e.cue for e in ends if e.cue is not None) == sorted(cues)
        for member in self.scenario.members:
            self._check_memory(member.name, str(member.agent), cues)
        for counted in (e for e in self.entries if isinstance(e, Counted)):
            voters = Counter(ballot.voter for ballot in self.ballots(counted.poll))
            assert set(voters.values()) <= {1}
            tally = counted.tally
            assert tally.num_valid + tally.num_invalid + tally.num_absent == len(voters)
            assert sum(tally.points.values()) == tally.num_valid

    def _check_memory(self, name: str, agent: str, cues: dict[int, Cue]) -> None:
        memory = self.memories[agent]
        keys = [m["key"] for m in memory if m.get("key") is not None and self._own(m)]
        assert len(set(keys)) == len(keys), f"{name} has heard or said something twice"
        said = {m["key"] for m in memory if m["role"] == "assistant" and self._own(m)}
        own = [e for e in self.entries if _cue_of(e) in cues and cues[_cue_of(e)].speaker == name]
        ended = {f"{self.uid}.{_cue_of(e)}" for e in own if _has_text(e)}
        silent = {f"{self.uid}.{_cue_of(e)}" for e in own if isinstance(e, Silence)}
        assert ended <= said <= ended | silent, f"{name} remembers other turns than it had"
        heard = {m["key"] for m in memory if m.get("heard") and self._own(m)}
        may = {f"{self.uid}.{x.number}": x.number for x in self.lines if reaches(x, name)}
        assert heard <= set(may), f"{name} has heard what was not meant for it"
        horizon = max((c.horizon for c in cues.values() if c.speaker == name), default=0)
        must = {key for key, number in may.items() if number < horizon}
        assert must <= heard, f"{name} has missed something"

    def _own(self, message: dict[str, Any]) -> bool:
        return str(message.get("key")).startswith(f"{self.uid}.")


def _cue_of(entry: Entry) -> int:
    """The cue that an entry ends; -1 for one that ends none."""
    cue = entry.cue if isinstance(entry, Line | Silence | Call | Cast) else None
    return -1 if cue is None else cue


def _has_text(entry: Entry) -> bool:
    match entry:
        case Line():
            return True
        case Call(text=text):
            return text is not None
        case Cast(ballot=ballot):
            return ballot.text is not None
        case _:
            return False


def _written(store: Path, name: str, namespace: str) -> tuple[SceneRow, tuple[Entry, ...]]:
    ledger = Ledger(store)
    try:
        row = ledger.find(namespace, name)
        assert row is not None
        return row, ledger.read(row.uid)
    finally:
        ledger.close()


def _memories(store: Path, namespace: str) -> dict[str, list[Any]]:
    """The messages that each agent remembers."""
    index = Index(store)
    try:
        segments = {s.id: s for s in index.load_all().segments}
        rows = index.list_agents(namespace)
        return {r.name: list(transcript(chain(r.head, segments))) for r in rows}
    finally:
        index.close()
