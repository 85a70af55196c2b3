"""Two models of one shape with different weights never share a segment, and each finds its own."""

import shutil
from pathlib import Path

import mlx.core as mx

from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.index import Index
from greenroom.runtime.segments import Segment
from tests.test_memory import ask, model, play

__all__ = ["model"]  # the fixture
SYSTEM = "Be kind to every guest, and to the others too. " * 10


def test_a_fine_tune_remembers_nothing_of_what_the_other_said(model: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(model, tuned)
    weights = mx.load(str(tuned / "model.safetensors"))
    assert isinstance(weights, dict)
    name = next(each for each in weights if each.endswith("mlp.down_proj.weight"))
    weights[name] = weights[name] * 1.01
    mx.save_safetensors(str(tuned / "model.safetensors"), weights)
    cached: list[int] = []

    async def scenario(house: Playhouse) -> None:
        for agent in ("alice", "bob"):
            done = await ask(house, agent, "Who comes?", system=SYSTEM)
            cached.append(done.usage.cached_tokens)

    for served in (model, tuned, model):
        play(tmp_path / "home", served, scenario)
    first, tuned_first, again = cached[0], cached[2], cached[4]
    assert first == tuned_first == 0
    assert cached[1] == cached[3] > 100, "each shares with itself"
    assert again > 100, "and the first finds what it knew"
    index = Index(tmp_path / "home" / "store")
    segments = index.load_all().segments
    index.close()
    by_model: dict[str, list[Segment]] = {}
    for each in segments:
        by_model.setdefault(each.fingerprint, []).append(each)
    one, two = by_model.values()
    assert {s.token_bytes for s in one} & {s.token_bytes for s in two}, "the same words"
    assert not {s.id for s in one} & {s.id for s in two}
    known = {s.id: s for s in segments}
    for each in segments:
        assert each.parent is None or known[each.parent].fingerprint == each.fingerprint
