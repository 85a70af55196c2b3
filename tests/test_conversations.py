"""Random conversations on one stage: whatever was said, cut, forgotten or given up before, the
next answer is the one that the model gives to the whole text."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.runtime.codec import Payload, is_passing
from greenroom.runtime.job import Encoded
from greenroom.runtime.segments import Segment
from greenroom.runtime.spec import extract_spec
from greenroom.runtime.supersede import superseded
from tests.backstage import segment
from tests.exact import play, reread
from tests.menagerie import config_of
from tests.tiny import StageRig, alone, prompt
from tests.zoo import CONFIGS, build

# gear keeps full attention, a sliding window and a convolution's state in one model.
MODELS = ("gear", "gpt_oss", "qwen3_next")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 20)),  # so many new tokens
        st.tuples(st.just("edit"), st.integers(0, 99)),  # go back to this share of the history
        st.tuples(st.just("restart"), st.just(0)),  # all from disk
        st.tuples(st.just("evict"), st.integers(0, 3)),  # so many segments are left of the bytes
        st.tuples(st.just("tidy"), st.just(0)),  # superseded tails and states go
        st.tuples(st.just("cancel"), st.integers(0, 8)),  # a turn given up after so many steps
        st.tuples(st.just("stop"), st.integers(1, 12)),  # an answer of which so much is kept
    ),
    min_size=2,
    max_size=7,
)


class Conversation:
    """One agent's history by hand: its tokens, and the segments that stand for them."""

    def __init__(self, model: Any, root: Path) -> None:
        self.model = model
        self.root = root
        self.tokens: tuple[int, ...] = ()
        self.chain: list[Encoded] = []
        self.turns = 0

    def step(self, what: str, much: int) -> None:
        """Do one thing, and check every answer."""
        self.turns += 1
        told = (*self.tokens, *prompt(max(1, much if what == "say" else 5), self.turns))
        match what:
            case "say":
                _, answer, self.chain = play(self.model, "float", told, self.chain, num_tokens=6)
                assert answer == alone(self.model, told, 6)
                self.tokens = (*told, *answer)
            case "edit":
                at = len(self.tokens) * much // 100
                self.tokens = self.tokens[:at]
                kept = [p for p in self.chain if p.start < at]
                self.chain = [Encoded(p.start, min(p.stop, at), p.payload) for p in kept]
            case "restart":
                self.chain = reread(self.root / str(self.turns), "float", self.chain)
            case "evict":
                self.chain = self.chain[:much]
            case "tidy":
                self.chain = tidied(self.model, self.chain)
            case "cancel":
                rig = StageRig(self.model, chunk_tokens=8)
                rig.submit(1, told, 6, pieces=self.chain)
                for _ in range(much):
                    rig.stage.step()
                rig.stage.cancel(1)
            case "stop":
                self.stop(told, much)
            case _:
                raise AssertionError(what)

    def stop(self, told: tuple[int, ...], keep: int) -> None:
        """A turn of which only ``keep`` tokens are kept, as by a stop string."""
        rig = StageRig(self.model, chunk_tokens=8)
        rig.submit(1, told, 20, pieces=self.chain)
        while len(rig.tokens(1)) < keep + 2:
            rig.stage.step()
        answer = rig.tokens(1)[:keep]
        assert answer == alone(self.model, told, keep)
        rig.stage.finish(1, keep)
        new = rig.done(1).segments
        self.chain = [*(p for p in self.chain if p.stop <= new[0].start), *new]
        self.tokens = (*told, *answer)


def tidied(model: Any, pieces: list[Encoded]) -> list[Encoded]:
    """What the custodian leaves of a chain whose end an agent stands on."""
    windows = extract_spec(model, {"max_position_embeddings": 2048}).windows
    chain: list[Segment] = []
    for piece in pieces:
        parent = chain[-1] if chain else None
        tokens = [len(chain)] * piece.payload.num_tokens
        chain.append(segment(parent, tokens, start=piece.start))
    known = {each.id: each for each in chain}
    gone = superseded(known, [each.id for each in chain[-1:]], max(windows, default=0))
    return [
        Encoded(piece.start, piece.stop, lasting(piece.payload)) if each.id in gone else piece
        for piece, each in zip(pieces, chain, strict=True)
    ]


def lasting(payload: Payload) -> Payload:
    """A payload without what passes."""
    arrays = {name: array for name, array in payload.arrays.items() if not is_passing(name)}
    return Payload(payload.codec, payload.num_tokens, arrays)


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param, config_of(request.param))


def talk(model: Any, todo: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        conversation = Conversation(model, Path(root))
        for what, much in (*todo, ("restart", 0), ("say", 4)):
            conversation.step(what, much)


@settings(max_examples=5)
@given(steps)
def test_every_answer_is_that_to_the_whole_text(model: Any, todo: list[tuple[str, int]]) -> None:
    talk(model, todo)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [*CONFIGS, "gear"])
@settings(max_examples=25)
@given(todo=steps)
def test_many_more_conversations(name: str, todo: list[tuple[str, int]]) -> None:
    talk(built(name), todo)


@functools.cache
def built(name: str) -> Any:
    """Each model once."""
    return build(name, config_of(name))
