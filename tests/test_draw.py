"""What one sequence's tokens are drawn from: penalties, biases, grammar and log-probabilities."""

import math
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from greenroom.runtime.job import JobTokens
from greenroom.runtime.penalties import make_shapers
from greenroom.runtime.records import Sampling, TokenLogprob
from greenroom.runtime.sampling import greedy, make_draw
from tests.tiny import VOCABULARY, StageRig, prompt, tiny_llama

PROMPT = prompt(33, 2)
PLAIN = Sampling(temperature=0.0, top_p=1.0, seed=0)


def shaped(sampling: Sampling, answer: list[int], logits: list[float]) -> list[float]:
    """The logits of the position after ``answer``, as a turn with the prompt [0, 1] shapes them."""
    shapers = make_shapers(sampling, [0, 1])
    out = mx.array([logits])
    for last in [None, *(mx.array([t]) for t in answer)]:
        out = mx.array([logits])
        for shape in shapers:
            out = shape(last, out)
    return cast("list[list[float]]", out.tolist())[0]


def test_presence_counts_once_and_frequency_each_time_and_the_prompt_does_not_count() -> None:
    logits = [1.0, 2.0, 3.0, 4.0]
    assert shaped(Sampling(presence_penalty=0.5), [2, 2, 3], logits) == [1.0, 2.0, 2.5, 3.5]
    assert shaped(Sampling(frequency_penalty=0.5), [2, 2, 3], logits) == [1.0, 2.0, 2.0, 3.5]
    assert shaped(Sampling(frequency_penalty=0.5), [], logits) == logits


def test_repetition_is_a_factor_against_prompt_and_answer() -> None:
    assert shaped(Sampling(repetition_penalty=2.0), [3], [1.0, -1.0, 3.0, 4.0]) == [
        0.5, -2.0, 3.0, 2.0,
    ]  # fmt: skip


def test_a_bias_is_added_and_an_unknown_token_is_nobodys() -> None:
    biased = Sampling(logit_bias=((1, 2.5), (99, 1.0)))
    assert shaped(biased, [1], [0.0, 0.0, 0.0]) == [0.0, 2.5, 0.0]


def test_whoever_asks_for_nothing_gets_the_bare_sampler() -> None:
    draw = make_draw(PLAIN, PROMPT)
    assert draw.sampler is greedy
    assert draw.processors == []
    assert draw.told() == ()


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama()


def answered(
    model: Any, sampling: Sampling, *, beside: Sampling | None = None, **more: Any
) -> tuple[list[int], list[TokenLogprob]]:
    """Twenty tokens of an answer on stage, and what was told of them; ``beside`` runs with it."""
    rig = StageRig(model)
    if beside is not None:
        rig.submit(2, prompt(20, 5), 30, sampling=beside)
    rig.submit(1, PROMPT, 20, sampling=sampling, **more)
    rig.run()
    told = [e.logprobs for e in rig.events[1] if isinstance(e, JobTokens)]
    return rig.tokens(1), [t for each in told for t in each]


def reference(model: Any, choose: Callable[[np.ndarray[Any, Any], list[int]], int]) -> list[int]:
    """Twenty tokens by the plainest means: the whole sequence anew for every token."""
    answer: list[int] = []
    while len(answer) < 20:
        logits = model(mx.array([[*PROMPT, *answer]]))[0, -1]
        answer.append(choose(np.array(logits, dtype=np.float64), answer))
    return answer


def test_penalties_on_stage_see_the_whole_sequence(model: Any) -> None:
    def choose(logits: np.ndarray[Any, Any], answer: list[int]) -> int:
        for token in {*PROMPT, *answer}:
            logits[token] *= 1 / 1.3 if logits[token] > 0 else 1.3
        for token in set(answer):
            logits[token] -= 0.2 + 0.1 * answer.count(token)
        logits[7] += 0.05
        return int(logits.argmax())

    sampling = Sampling(
        temperature=0.0,
        repetition_penalty=1.3,
        presence_penalty=0.2,
        frequency_penalty=0.1,
        logit_bias=((7, 0.05),),
    )
    expected = reference(model, choose)
    assert answered(model, sampling)[0] == expected
    assert answered(model, sampling, beside=PLAIN)[0] == expected
    assert expected != answered(model, PLAIN)[0]


def test_a_seeded_draw_with_everything_is_the_same_in_company(model: Any) -> None:
    sampling = Sampling(temperature=1.5, top_p=0.95, seed=11, presence_penalty=0.5, top_logprobs=2)
    alone = answered(model, sampling)
    company = answered(model, sampling, beside=Sampling(temperature=2.0, seed=1, top_logprobs=0))
    assert alone[0] == company[0]
    assert [t.token for t in company[1]] == alone[0]


def test_logprobs_are_the_models_own_before_anything_shapes_them(model: Any) -> None:
    biased = Sampling(temperature=1.7, seed=3, logit_bias=((5, 4.0),), top_logprobs=3)
    tokens, told = answered(model, biased, beside=PLAIN)
    assert [t.token for t in told] == tokens
    for n, each in enumerate(told):
        logits = model(mx.array([[*PROMPT, *tokens[:n]]]))[0, -1]
        expected = np.array(logits - mx.logsumexp(logits), dtype=np.float64)
        assert each.logprob == pytest.approx(expected[tokens[n]], abs=1e-4)
        assert [t.logprob for t in each.top] == pytest.approx(
            sorted(expected, reverse=True)[:3], abs=1e-4
        )
        assert each.top[0].token == int(expected.argmax())


def test_only_rows_that_ask_are_told(model: Any) -> None:
    assert answered(model, PLAIN, beside=Sampling(temperature=0.0, top_logprobs=1))[1] == []
    told = answered(model, Sampling(temperature=0.0, top_logprobs=0))[1]
    assert len(told) == 20
    assert all(t.top == () and t.logprob < 0 and math.isfinite(t.logprob) for t in told)


class _Letters:
    """A tokenizer of single characters from "!" on, as many as the tiny model knows."""

    def __init__(self) -> None:
        self.eos_token_id = 0
        self.bos_token_id = None
        letters = [bytes([33 + n]) for n in range(1, VOCABULARY - 4)]
        self.tokens = [b"<end>", *letters, b"-", b"+", b"*"]
        self.special_token_ids = [0]

    def __call__(self, text: bytes | str) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        return [b - 33 for b in data]


def letters() -> LLTokenizer:
    """The tiny model's tokens as single characters."""
    return LLTokenizer(TokenizerWrapper(_Letters()))


def test_a_grammar_leaves_only_what_is_valid_and_then_the_end(model: Any) -> None:
    tokenizer = letters()
    grammar = LLMatcher.grammar_from_regex("[a-c]{4,9}")
    for beside in (None, PLAIN, Sampling(temperature=1.0, seed=4)):
        rig = StageRig(model)
        if beside is not None:
            rig.submit(2, prompt(20, 5), 30, sampling=beside)
        rig.submit(
            1, PROMPT, 20, sampling=Sampling(temperature=1.9, seed=5), stop_tokens=(0,),
            matcher=LLMatcher(tokenizer, grammar),
        )  # fmt: skip
        rig.run()
        *said, end = rig.tokens(1)
        assert end == 0
        assert rig.reason(1) == "stop"
        assert 4 <= len(said) <= 9
        assert {chr(33 + t) for t in said} <= {"a", "b", "c"}
