"""Tiny random models and a stage for them: exactness is tested on these, in milliseconds."""

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import mlx.core as mx
from llguidance import LLMatcher
from mlx_lm.models import llama
from mlx_lm.models.cache import make_prompt_cache

from greenroom.runtime.codec import Codec, codec_named, link
from greenroom.runtime.head import last_position_head
from greenroom.runtime.job import Encoded, Job, JobDone, JobEnded, JobEvent, JobTokens, Piece
from greenroom.runtime.lanes import Lanes
from greenroom.runtime.limits import StageLimits
from greenroom.runtime.records import Sampling
from greenroom.runtime.resume import stand_at
from greenroom.runtime.spec import CacheSpec, extract_spec
from greenroom.runtime.stage import Stage

VOCABULARY = 97
GREEDY = Sampling(temperature=0.0, top_p=1.0, seed=0)


def tiny_llama() -> Any:
    """Two layers of llama with random weights, evaluated."""
    mx.random.seed(5)
    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    model = llama.Model(args)
    mx.eval(model.parameters())
    return model


def prompt(length: int, salt: int = 0) -> tuple[int, ...]:
    """Token ids without a pattern that would make every answer the same."""
    return tuple((7 * i * i + 3 * i + 11 * salt) % VOCABULARY for i in range(length))


def token(array: mx.array) -> int:
    """The one element of an array of token ids."""
    return cast("int", array.item())


def alone(model: Any, tokens: Sequence[int], num_tokens: int) -> list[int]:
    """The greedy answer by the plainest means: one prefill, then one token at a time."""
    cache = make_prompt_cache(model)
    answer = [token(mx.argmax(model(mx.array([tokens]), cache=cache)[0, -1]))]
    while len(answer) < num_tokens:
        logits = model(mx.array([answer[-1:]]), cache=cache)
        answer.append(token(mx.argmax(logits[0, -1])))
    return answer


def standing(spec: CacheSpec, chain: Sequence[Encoded]) -> list[Encoded]:
    """The part of a chain of segments that a new one may follow, as an agent decides it.

    A segment whose ``stop`` is before its payload's end is used up to there.
    """
    links = [link(spec, p.payload, p.stop - p.start) for p in chain]
    length = stand_at(links, spec.windows)
    return [Encoded(p.start, min(p.stop, length), p.payload) for p in chain if p.start < length]


class StageRig:
    """A stage for a tiny model, stepped by hand; collects what it emits."""

    def __init__(
        self,
        model: Any,
        *,
        codec: str = "float",
        max_batch_size: int = 2,
        chunk_tokens: int = 16,
        resident_bytes: int = 0,
        memory_bytes: int = 1 << 40,
        schedule: Literal["adaptive", "fixed"] = "fixed",
        max_rows: int = 0,
        max_row_cost: float = math.inf,
        lanes: Lanes | None = None,
    ) -> None:
        self.codec: Codec = codec_named(codec)
        self.spec = extract_spec(model, {"max_position_embeddings": 2048})
        self.events: dict[int, list[JobEvent]] = {}
        limits = StageLimits(
            max_batch_size,
            chunk_tokens,
            schedule,
            0.5,
            resident_bytes,
            memory_bytes,
            max_rows,
            max_row_cost,
        )
        self.stage = Stage(
            last_position_head(model), self.spec, self.codec, limits, self._emit, lanes=lanes
        )

    def _emit(self, uid: int, event: JobEvent) -> None:
        self.events.setdefault(uid, []).append(event)

    def submit(
        self,
        uid: int,
        tokens: Sequence[int],
        max_tokens: int,
        *,
        pieces: Sequence[Encoded] = (),
        stop_tokens: tuple[int, ...] = (),
        sampling: Sampling = GREEDY,
        system_end: int = 0,
        handle: int | None = None,
        background: bool = False,
        matcher: LLMatcher | None = None,
        scope: str | None = None,
        keys: Sequence[str] | None = None,
        encodes: bool = True,
        rehearses: bool = False,
        rehearsal: int | None = None,
    ) -> None:
        """Submit a prompt whose first tokens are the ``pieces``, cut where they may be stood on.

        One that does not encode is a second answer to a prompt; one that rehearses is open.
        """
        pieces = standing(self.spec, pieces)
        known = pieces[-1].stop if pieces else 0
        ends = (system_end,) if rehearses else (system_end, len(tokens))
        job = Job(
            tokens=tuple(tokens),
            pieces=tuple(
                Piece(p.payload, p.stop - p.start, key)
                for p, key in zip(pieces, keys or [""] * len(pieces), strict=True)
            ),
            encode_from=known if encodes else len(tokens),
            boundaries=tuple(b for b in ends if encodes and b > known),
            max_tokens=max_tokens,
            stop_tokens=stop_tokens,
            sampling=sampling,
            handle=handle,
            background=background,
            matcher=matcher,
            scope=scope,
            open=rehearses,
            rehearsal=rehearsal,
        )
        self.stage.submit(uid, job)

    def run(self, *, settle: bool = True) -> None:
        """Step until nothing is left, and remember every answer whole.

        Without ``settle`` the resident copies stay as the turns left them.
        """
        while not self.stage.idle:
            self.stage.step()
        for uid in self.events:
            self.stage.finish(uid, len(self.tokens(uid)))
        while settle and not self.stage.idle:
            self.stage.step()

    def tokens(self, uid: int) -> list[int]:
        """What a job has sampled so far."""
        events = self.events.get(uid, [])
        return [t for e in events if isinstance(e, JobTokens) for t in e.tokens]

    def reason(self, uid: int) -> str | None:
        """Why a job has ended, None before it has."""
        reasons = [e.reason for e in self.events.get(uid, []) if isinstance(e, JobEnded)]
        return reasons[0] if reasons else None

    def done(self, uid: int) -> JobDone:
        """A job's last event."""
        last = self.events[uid][-1]
        assert isinstance(last, JobDone)
        return last
