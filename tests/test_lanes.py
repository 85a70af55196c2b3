"""Parts of a chunk on streams of their own give what they give one after the other, to the bit."""

import re
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import make_prompt_cache

from greenroom.runtime.lanes import LEAST, Lanes
from tests.menagerie import config_of
from tests.test_company import MODELS
from tests.tiny import prompt, tiny_llama
from tests.zoo import build

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"


def served() -> list[str]:
    """The architectures that go on exactly from disk, as the page says."""
    passing = PAGE.read_text().split("\n## ")[1]
    return re.findall(r"^\| `([^`]+)`", passing, re.MULTILINE)


@pytest.fixture(scope="module")
def lanes() -> Lanes:
    return Lanes((mx.default_stream(mx.cpu), mx.new_stream(mx.cpu)))


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_llama()


def states(cache: list[Any]) -> list[Any]:
    return [c.state for c in cache]


def spread(model: Any, lanes: Lanes, lengths: list[int]) -> tuple[mx.array, list[Any]]:
    """The last logits and the caches after chunks of these lengths, each over the lanes."""
    cache, at = make_prompt_cache(model), 0
    tokens = prompt(sum(lengths))
    for length in lengths:
        logits = lanes.forward(model, tokens[at : at + length], cache)
        mx.eval(logits, states(cache))
        at += length
    return logits[:, -1], cache


def one_by_one(model: Any, lengths: list[int]) -> tuple[mx.array, list[Any]]:
    """The same on one stream, every part evaluated before the next."""
    cache, at = make_prompt_cache(model), 0
    tokens = prompt(sum(lengths))
    for length in lengths:
        half = -(-length // 2) if length >= 2 * LEAST else length
        for size in (half, length - half):
            if size:
                logits = model(mx.array([tokens[at : at + size]], mx.uint32), cache=cache)
                mx.eval(logits, states(cache))
                at += size
    return logits[:, -1], cache


def arrays(state: Any) -> list[mx.array]:
    if isinstance(state, mx.array):
        return [state]
    return [a for part in state for a in arrays(part)] if isinstance(state, (list, tuple)) else []


def agree(model: Any, lanes: Lanes, lengths: list[int]) -> None:
    ours, cache = spread(model, lanes, lengths)
    theirs, other = one_by_one(model, lengths)
    assert mx.array_equal(ours, theirs).item()
    pairs = list(zip(arrays(states(cache)), arrays(states(other)), strict=True))
    assert pairs
    assert all(mx.array_equal(a, b, equal_nan=True).item() for a, b in pairs)


@pytest.mark.parametrize("name", MODELS)
def test_all_kinds_of_layers(name: str, lanes: Lanes) -> None:
    agree(build(name, config_of(name)), lanes, [33, 16, 64, 7, 1, 40])


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in served() if n not in MODELS])
def test_all_architectures(name: str, lanes: Lanes) -> None:
    agree(build(name, config_of(name)), lanes, [33, 16])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=5))
def test_any_chunks(lanes: Lanes, llama: Any, lengths: list[int]) -> None:
    agree(llama, lanes, lengths)


def test_short_chunks_and_single_streams_are_one_pass(lanes: Lanes, llama: Any) -> None:
    seen: list[int] = []

    def model(tokens: mx.array, cache: list[Any]) -> Any:
        seen.append(tokens.shape[1])
        return llama(tokens, cache=cache)

    for each, length in ((lanes, 2 * LEAST - 1), (lanes, 2 * LEAST), (Lanes(), 200)):
        each.forward(cast("Any", model), prompt(length), make_prompt_cache(llama))
    assert seen == [2 * LEAST - 1, LEAST, LEAST, 200]
