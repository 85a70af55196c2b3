"""Who knows every part without ever having been on: what each turn of a house should have come to.

Every turn is computed anew, by itself: its memory is put together from payloads that are encoded
here, one segment at a time, from token ids alone. There is no disk, no store, no copy and no
company, so whatever a house evicts, shares, forks, carries or reads back must make no difference,
neither to a token nor to a byte.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path

import mlx.core as mx
import msgspec
from mlx_lm.models.cache import make_prompt_cache

from greenroom.runtime.codec import LAST_HIDDEN, Payload, link
from greenroom.runtime.head import OutputHead, last_position_head
from greenroom.runtime.host import chunk_lanes
from greenroom.runtime.job import Encoded, JobStarted
from greenroom.runtime.lanes import Lanes
from greenroom.runtime.loader import load
from greenroom.runtime.restore import restore
from greenroom.runtime.resume import stand_at
from greenroom.runtime.segments import Piece, chain_tokens
from greenroom.runtime.spec import extract_spec
from tests.tiny import StageRig, alone, token

CHUNK_TOKENS = 64
"""As ``tests.test_hearing.settings`` has it."""


@cache
def lanes() -> Lanes:
    """As a house has them: what a window comes to hangs on where a chunk is cut."""
    return chunk_lanes()


class Part(msgspec.Struct, frozen=True):
    """One job of a house: a turn, or something that was heard.

    ``chain`` is where the agent stood afterwards, ``held`` what the store had of it then, by id,
    and ``had`` the names of the arrays that it had of all segments before.
    The first ``num_prompt`` tokens are the prompt, of which ``cached`` were not computed; the
    ``answer`` is empty where something was only heard, and ``cached`` None where nobody said.
    Of what is ``gone`` the store had lost the bytes before.
    """

    chain: tuple[Piece, ...]
    held: Mapping[str, Payload]
    had: Mapping[str, Collection[str]]
    num_prompt: int
    answer: tuple[int, ...]
    cached: int | None
    gone: tuple[str, ...]
    max_tokens: int

    @property
    def prompt(self) -> tuple[int, ...]:
        """The prompt's token ids."""
        return tuple(chain_tokens(self.chain)[: self.num_prompt].tolist())


class Understudy:
    """Plays the parts of one house, in order. ``codec`` is that of the house."""

    def __init__(self, checkpoint: Path, codec: str) -> None:
        loaded = load(checkpoint, device="cpu")
        self._model = last_position_head(loaded.model)
        self._head = OutputHead(self._model, lanes().warm_up(self._model))
        self._spec = extract_spec(loaded.model, loaded.config)
        self._stops = tuple(sorted(loaded.tokenizer.eos_token_ids))
        self._codec = codec
        self._payloads: dict[str, Payload] = {}

    def play(self, part: Part) -> None:
        """Compute one part, and compare all that came of it."""
        for each in part.gone:
            self._payloads.pop(each, None)
        known = list(takewhile(self._knows, part.chain))
        known = [p for p in known if p.segment.start < part.num_prompt or not part.answer]
        pieces = [self._piece(p, part.had[p.segment.id]) for p in known]
        known = known[: self._standing(pieces)]
        pieces = pieces[: len(known)]
        new = part.chain[len(known) :]
        if not new and not part.answer:
            return  # somebody had heard the same: nothing was computed
        prompt = part.prompt
        system = new[0].segment if new and new[0].segment.kind == "system" else None
        rig = StageRig(self._model, codec=self._codec, chunk_tokens=CHUNK_TOKENS, lanes=lanes())
        rig.submit(
            1,
            prompt,
            part.max_tokens if part.answer else 0,
            pieces=pieces,
            stop_tokens=self._stops,
            system_end=system.end if system else 0,
            background=not part.answer,
        )
        rig.run()
        started = rig.events[1][0]
        assert isinstance(started, JobStarted)
        assert part.cached in (None, started.cached_tokens)
        assert rig.tokens(1) == list(part.answer)
        self._compare_plainly(rig, part, pieces, started.cached_tokens)
        for piece, made in zip(new, rig.done(1).segments, strict=False):
            segment = piece.segment
            assert (segment.start, segment.end) == (made.start, made.stop), segment.kind
            # What has been written before stays as it is, however the same was come by this time.
            self._payloads.setdefault(segment.id, made.payload)
        for piece in part.chain:
            self._compare_bytes(piece.segment.id, part.held)

    def _knows(self, piece: Piece) -> bool:
        return piece.segment.id in self._payloads

    def _standing(self, pieces: Sequence[Encoded]) -> int:
        """How many of them a turn goes on from: at their end a window must be whole."""
        links = [link(self._spec, p.payload, p.stop - p.start) for p in pieces]
        end = stand_at(links, self._spec.windows)
        return sum(p.start < end for p in pieces)

    def _piece(self, piece: Piece, kept: Collection[str]) -> Encoded:
        """What is remembered, without tails and states that the house had let go of before."""
        start, payload = piece.segment.start, self._payloads[piece.segment.id]
        arrays = {name: array for name, array in payload.arrays.items() if name in kept}
        return Encoded(start, start + piece.used, msgspec.structs.replace(payload, arrays=arrays))

    def _compare_plainly(
        self, rig: StageRig, part: Part, pieces: Sequence[Encoded], cached: int
    ) -> None:
        """A model without a stage says the same: what is remembered through the codec, the rest in
        one go; and where the codec loses nothing, all of it in one go."""
        if not part.answer:
            return
        prompt, number = part.prompt, len(part.answer)
        if self._codec == "float":
            assert list(part.answer) == alone(self._model, prompt, number)
        used = [(p.payload, min(p.stop, cached) - p.start) for p in pieces if p.start < cached]
        caches = restore(rig.spec, used) if used else make_prompt_cache(self._model)
        answer: list[int] = []
        rest: Sequence[int] = prompt[cached:]
        if not rest:  # remembered whole, and what the answer begins with
            last_hidden = pieces[-1].payload.arrays[LAST_HIDDEN]
            answer.append(token(mx.argmax(self._head.logits(last_hidden))))
            rest = answer[-1:]
        while len(answer) < number:
            logits = self._model(mx.array([rest], dtype=mx.uint32), cache=caches)
            answer.append(token(mx.argmax(logits[0, -1])))
            rest = answer[-1:]
        assert answer == list(part.answer)

    def _compare_bytes(self, segment_id: str, held: Mapping[str, Payload]) -> None:
        """What is stored is what was encoded here, but for what has been superseded."""
        ours, theirs = self._payloads[segment_id].arrays, held[segment_id].arrays
        assert theirs.keys() <= ours.keys()
        for name, array in theirs.items():
            assert array.tobytes() == ours[name].tobytes(), name
