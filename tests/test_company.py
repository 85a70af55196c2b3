"""Agents in company, on every kind of model: arrivals, ends, stops and cancels at any time change
nobody's tokens, whatever the batch holds, and nobody's memory either."""

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import make_prompt_cache

from greenroom.runtime.job import Encoded, JobDone
from tests.tiny import StageRig, prompt, token
from tests.zoo import build

MODELS = ("llama", "qwen3", "gemma3_text", "deepseek_v2", "gpt_oss", "qwen3_next", "mamba2")
TIE = 1e-5
"""Between the two best logits, of their spread: what is closer may turn by rounding alone."""


class Speak(msgspec.Struct, frozen=True):
    """An agent's next turn: so many new tokens, so many to answer at most.

    ``end``: the answer's token there is an end token. ``text``: complete after so many tokens, of
    which ``keep`` are to be remembered, as when a stop string was found.
    """

    agent: int
    new: int
    max_tokens: int
    end: int | None = None
    text: int | None = None
    keep: int = 0


class Hear(msgspec.Struct, frozen=True):
    """An agent is told so many tokens, and nobody waits for it."""

    agent: int
    new: int


class Steps(msgspec.Struct, frozen=True):
    """The stage goes on for so long."""

    num: int


class Cancel(msgspec.Struct, frozen=True):
    """The agent's caller leaves."""

    agent: int


Event = Speak | Hear | Steps | Cancel
speeches = st.builds(
    Speak,
    agent=st.integers(0, 3),
    new=st.integers(1, 30),
    max_tokens=st.integers(1, 16),
    end=st.none() | st.integers(0, 15),
    text=st.none() | st.integers(1, 15),
    keep=st.integers(0, 15),
)
events = st.lists(
    speeches
    | st.builds(Hear, st.integers(0, 3), st.integers(40, 70))
    | st.builds(Steps, st.integers(1, 9))
    | st.builds(Cancel, st.integers(0, 3)),
    min_size=3,
    max_size=14,
)
# What is heard beside others' turns: two at once, one that finds no row, one that is asked before
# it has heard everything, one that is given up, one who goes on from what it has heard.
HEARING: list[Event] = [
    Speak(0, 20, 90),
    Hear(1, 60),
    Steps(6),
    Hear(2, 50),
    Hear(3, 55),
    Steps(30),
    Speak(1, 5, 30),
    Steps(9),
    Cancel(2),
    Hear(2, 52),
    Steps(60),
    Speak(3, 11, 8),
    Speak(2, 11, 8),
]
# Everything at least once: three at a time, a join in mid-decode, one who goes on from what the
# company left, a cancel in the prompt and one in the answer, an end token and a stop string.
EVERYTHING: list[Event] = [
    Speak(0, 20, 16),
    Steps(6),
    Speak(1, 30, 12),
    Speak(2, 9, 16, text=6, keep=4),
    Steps(4),
    Speak(3, 25, 9, end=5),
    Steps(9),
    Cancel(1),
    Speak(1, 13, 8),
    Steps(9),
    Speak(0, 7, 12),
    Speak(2, 12, 10),
    Steps(2),
    Cancel(0),
    Speak(0, 3, 1),
    Steps(9),
    Speak(0, 11, 8),
]


class TieError(Exception):
    """Rounding may decide this example: it shows nothing."""


class Company:
    """A stage and its agents, each with its history by hand."""

    def __init__(
        self, model: Any, max_batch_size: int, resident_bytes: int, max_rows: int = 0
    ) -> None:
        self._model = model
        self._rig = StageRig(
            model,
            max_batch_size=max_batch_size,
            chunk_tokens=8,
            resident_bytes=resident_bytes,
            schedule="adaptive" if max_rows else "fixed",
            max_rows=max_rows,
        )
        self._tokens: dict[int, tuple[int, ...]] = {}
        self._chains: dict[int, list[Encoded]] = {}
        self._handles: dict[int, int] = {}
        self._running: dict[int, tuple[int, Speak, tuple[int, ...], list[int]]] = {}
        self._hearing: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._uid = 0

    @property
    def num_read(self) -> int:
        """Tokens that were heard beside others who decoded."""
        return self._rig.stage.counters.read_tokens

    def play(self, script: Sequence[Event]) -> None:
        """Let it all happen, and the rest run to its end."""
        for event in script:
            match event:
                case Speak(agent) if agent not in self._running:
                    self._wait_for(agent)
                    self._speak(event)
                case Hear(agent, new) if agent not in self._running | self._hearing:
                    self._hear(agent, new)
                case Steps(num):
                    for _ in range(num):
                        self._step()
                case Cancel(agent) if agent in self._running:
                    self._rig.stage.cancel(self._running.pop(agent)[0])
                case Cancel(agent) if agent in self._hearing:
                    self._rig.stage.cancel(self._hearing.pop(agent)[0])
                case _:  # an agent takes one turn at a time, and who is silent has no caller
                    pass
        while self._running or self._hearing:
            self._step()

    def _hear(self, agent: int, new: int) -> None:
        self._uid += 1
        told = (*self._tokens.get(agent, ()), *prompt(new, self._uid))
        self._rig.submit(
            self._uid,
            told,
            0,
            pieces=self._chains.get(agent, ()),
            handle=self._handles.get(agent),
            background=True,
        )
        self._hearing[agent] = (self._uid, told)

    def _wait_for(self, agent: int) -> None:
        """Who is asked has what it hears first."""
        if agent in self._hearing:
            self._rig.stage.promote(self._hearing[agent][0])
        while agent in self._hearing:
            self._step()

    def _speak(self, what: Speak) -> None:
        self._uid += 1
        told = (*self._tokens.get(what.agent, ()), *prompt(what.new, self._uid))
        expected = self._expected(told, what.max_tokens)
        ends = (expected[what.end],) if what.end is not None and what.end < len(expected) else ()
        if ends:
            expected = expected[: expected.index(ends[0]) + 1]
        self._rig.submit(
            self._uid,
            told,
            what.max_tokens,
            pieces=self._chains.get(what.agent, ()),
            stop_tokens=ends,
            handle=self._handles.get(what.agent),
        )
        self._running[what.agent] = (self._uid, what, told, expected)

    def _expected(self, told: Sequence[int], num_tokens: int) -> list[int]:
        """The answer by the plainest means. Raises TieError."""
        cache = make_prompt_cache(self._model)
        answer: list[int] = []
        new = list(told)
        while len(answer) < num_tokens:
            logits = self._model(mx.array([new]), cache=cache)[0, -1]
            least, *_, second, first = np.sort(np.array(logits))
            if first - second <= TIE * (first - least):
                raise TieError
            new = [token(mx.argmax(logits))]
            answer += new
        return answer

    def _step(self) -> None:
        """One step of the stage, and what agents do upon it."""
        self._rig.stage.step()
        for agent, (uid, what, told, expected) in list(self._running.items()):
            answer = self._rig.tokens(uid)
            assert answer == expected[: len(answer)]
            if what.text is not None and len(answer) >= what.text:
                self._over(agent, uid, told, answer[: min(what.keep, what.text)])
            elif self._rig.reason(uid) is not None:
                assert answer == expected
                self._over(agent, uid, told, answer)
        for agent, (uid, told) in list(self._hearing.items()):
            if isinstance(self._rig.events.get(uid, [None])[-1], JobDone):
                del self._hearing[agent]
                self._remember(agent, uid, told)

    def _over(self, agent: int, uid: int, told: tuple[int, ...], kept: list[int]) -> None:
        self._rig.stage.finish(uid, len(kept))
        self._remember(agent, uid, (*told, *kept))
        del self._running[agent]

    def _remember(self, agent: int, uid: int, tokens: tuple[int, ...]) -> None:
        done = self._rig.events[uid][-1]
        assert isinstance(done, JobDone)
        old = self._chains.get(agent, [])
        self._chains[agent] = [
            *(p for p in old if p.stop <= done.segments[0].start),
            *done.segments,
        ]
        self._tokens[agent] = tokens
        self._handles[agent] = uid


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


@pytest.mark.parametrize(
    ("max_batch_size", "resident_bytes"), [(1, 0), (2, 1 << 30), (4, 0)], ids=["1", "2", "4"]
)
def test_all_that_may_happen(model: Any, max_batch_size: int, resident_bytes: int) -> None:
    Company(model, max_batch_size, resident_bytes).play(EVERYTHING)


@pytest.mark.parametrize(
    ("max_batch_size", "resident_bytes", "max_rows"), [(1, 0, 2), (2, 1 << 30, 3)], ids=["2", "3"]
)
def test_what_is_heard_beside_others_changes_nothing(
    model: Any, max_batch_size: int, resident_bytes: int, max_rows: int
) -> None:
    company = Company(model, max_batch_size, resident_bytes, max_rows)
    company.play(HEARING)
    assert company.num_read > 90


sizes: Mapping[str, Any] = {
    "script": events,
    "max_batch_size": st.sampled_from([1, 2, 4]),
    "resident_bytes": st.sampled_from([0, 1 << 30]),
    "max_rows": st.sampled_from([0, 2, 3]),
}


@settings(max_examples=3)
@given(**sizes)
def test_company_changes_nothing(
    model: Any, script: list[Event], max_batch_size: int, resident_bytes: int, max_rows: int
) -> None:
    try:
        Company(model, max_batch_size, resident_bytes, max_rows).play(script)
    except TieError:
        reject()


@pytest.mark.slow
@settings(max_examples=80)
@given(**sizes)
def test_company_changes_nothing_many_times(
    model: Any, script: list[Event], max_batch_size: int, resident_bytes: int, max_rows: int
) -> None:
    try:
        Company(model, max_batch_size, resident_bytes, max_rows).play(script)
    except TieError:
        reject()
