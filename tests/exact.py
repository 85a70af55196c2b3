"""What exactness means: hot = restarted = full prefill, token by token, alone and in company."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from greenroom.runtime.codec import DEFAULT_CODEC
from greenroom.runtime.job import Encoded, JobStarted
from greenroom.runtime.restore import restore
from greenroom.runtime.segments import make_segment
from greenroom.runtime.vault import Vault
from tests.tiny import StageRig, alone, prompt

SYSTEM, FIRST, ANSWER = 13, 30, 12


def play(
    model: Any,
    codec: str,
    tokens: Sequence[int],
    pieces: Sequence[Encoded] = (),
    *,
    company: bool = False,
    num_tokens: int = ANSWER,
    **more: Any,
) -> tuple[StageRig, list[int], list[Encoded]]:
    """One turn on a stage of its own; ``company`` decodes already when it comes.

    Returns the stage, the answer and the whole chain.
    """
    rig = StageRig(model, codec=codec, chunk_tokens=8)
    if company:
        rig.submit(0, prompt(21, 5), 45)
        while len(rig.tokens(0)) < 5:
            rig.stage.step()
    rig.submit(1, tokens, num_tokens, pieces=pieces, **more)
    rig.run()
    new = rig.done(1).segments
    old = [p for p in pieces if p.stop <= new[0].start]
    if old and old[-1].stop < new[0].start:
        raise AssertionError("the new segments do not follow the old ones")
    return rig, rig.tokens(1), [*old, *new]


def reread(root: Path, codec: str, chain: Sequence[Encoded]) -> list[Encoded]:
    """The same chain as it comes back from disk."""
    vault = Vault(root)
    found: list[Encoded] = []
    for each in chain:
        segment = make_segment(
            parent="00" * 20 if each.start else None,
            start=each.start,
            tokens=range(each.payload.num_tokens),
            kind="prompt",
            namespace="",
            fingerprint=f"{len(found)}",
            codec=each.payload.codec,
        )
        assert vault.write(segment, each.payload)
        found.append(Encoded(each.start, each.stop, vault.read(segment.id)[1]))
    return found


def cached(rig: StageRig) -> int:
    started = rig.events[1][0]
    assert isinstance(started, JobStarted)
    return started.cached_tokens


def converse(model: Any, codec: str, root: Path, *, company: bool) -> None:
    """Three turns of one conversation; what is restored is compared with what was never away."""
    told = prompt(FIRST)
    _, answer, chain = play(model, codec, told, system_end=SYSTEM, company=company)
    assert answer == alone(model, told, ANSWER)
    assert [s.stop for s in chain] == [SYSTEM, FIRST, FIRST + ANSWER]
    for turn in range(2):
        told = told + tuple(answer) + prompt(9, turn)
        again = reread(root / str(turn), codec, chain)
        hot, answer, chain = play(model, codec, told, chain, company=company)
        cold, cold_answer, _ = play(model, codec, told, again, company=company)
        assert cold_answer == answer
        assert cached(hot) == cached(cold) == len(told) - 9
        if codec == "float":
            assert answer == alone(model, told, ANSWER)


def compare_logits(model: Any) -> None:
    """The next logits after a restored conversation are those of a full prefill, within 1e-4."""
    tokens = prompt(FIRST)
    rig, answer, chain = play(model, "float", tokens, system_end=SYSTEM)
    told = [*tokens, *answer, *prompt(5, 3)]
    caches = restore(rig.spec, [(s.payload, s.stop - s.start) for s in chain])
    new = mx.array([told[FIRST + ANSWER :]], dtype=mx.uint32)
    restored = model(new, cache=caches)[0, -1]
    every = mx.array([told], dtype=mx.uint32)
    whole = model(every, cache=make_prompt_cache(model))[0, -1]
    scale = mx.maximum(1.0, mx.abs(whole).max())
    assert mx.all(mx.abs(restored - whole) <= 1e-4 * scale).item()


def check_all(model: Any, root: Path) -> None:
    """All that makes an architecture pass."""
    converse(model, "float", root / "alone", company=False)
    converse(model, "float", root / "joining", company=True)
    converse(model, DEFAULT_CODEC, root / "encoded", company=True)
    compare_logits(model)
