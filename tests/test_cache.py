"""Cache surgery on real (tiny, random) models: what is restored is what was decoded, to the bit."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import deepseek_v2, llama
from mlx_lm.models.cache import KVCache, make_prompt_cache

from greenroom.runtime.cache import nbytes, slice_states
from greenroom.runtime.codec import CODECS, BadPayload, Payload
from greenroom.runtime.encoding import decode, encode
from greenroom.runtime.restore import restore
from greenroom.runtime.spec import CacheSpec, LayerSpec, extract_spec

PROMPT = [(7 * i * i + 3 * i) % 97 for i in range(150)]


def tiny_llama() -> Any:
    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=80,
        rms_norm_eps=1e-5,
        vocab_size=97,
        max_position_embeddings=512,
    )
    return llama.Model(args)


def tiny_mla() -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 64,
        "intermediate_size": 96,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "n_shared_experts": None,
        "n_routed_experts": None,
        "kv_lora_rank": 32,
        "q_lora_rank": None,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "qk_nope_head_dim": 32,
        "max_position_embeddings": 512,
        "rope_scaling": {
            "type": "yarn",
            "factor": 1.0,
            "original_max_position_embeddings": 512,
            "mscale_all_dim": 0,
        },
    }
    args = deepseek_v2.ModelArgs(**sizes)
    return deepseek_v2.Model(args)


@pytest.fixture(params=[tiny_llama, tiny_mla], ids=["llama", "mla"])
def model(request: pytest.FixtureRequest) -> Any:
    mx.random.seed(11)
    made = request.param()
    mx.eval(made.parameters())
    return made


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def prefilled(model: Any, tokens: list[int]) -> list[KVCache]:
    caches: list[KVCache] = make_prompt_cache(model)
    mx.eval(model(mx.array([tokens]), cache=caches))
    return caches


def segments(
    model: Any, spec: CacheSpec, codec: str, cuts: list[int]
) -> tuple[list[KVCache], list[Payload]]:
    caches = prefilled(model, PROMPT)
    return caches, [
        encode(CODECS[codec], spec, slice_states(caches, start, stop))
        for start, stop in pairwise(cuts)
    ]


def greedy(model: Any, caches: list[KVCache], token: int, count: int) -> list[int]:
    out = []
    for _ in range(count):
        token = int(model(mx.array([[token]]), cache=caches)[0, -1].argmax().item())
        out.append(token)
    return out


def test_the_spec_is_read_off_the_model() -> None:
    assert extract_spec(tiny_llama()) == CacheSpec(
        (LayerSpec("full", 2, 80, 80, "float32"),) * 2, 512
    )
    assert extract_spec(tiny_mla()) == CacheSpec(
        (LayerSpec("full", 4, 48, 32, "float32"),) * 2, 512
    )


@pytest.mark.parametrize("codec", CODECS)
def test_the_stage_cache_is_the_decoded_segments(
    model: Any, codec: str, pool: ThreadPoolExecutor
) -> None:
    spec = extract_spec(model)
    _, payloads = segments(model, spec, codec, [0, 64, 65, 150])
    pieces = list(zip(payloads, [40, 1, 85], strict=True))
    parts = [decode(spec, payload) for payload in payloads]
    for executor in (None, pool):
        caches = restore(spec, pieces, headroom=7, pool=executor)
        for index, cache in enumerate(caches):
            assert cache.keys is not None
            assert cache.values is not None
            assert cache.offset == 126
            for side, got in enumerate((cache.keys, cache.values)):
                wanted = mx.concatenate(
                    [
                        part.rows(index)[side][:, :, :used]
                        for part, (_, used) in zip(parts, pieces, strict=True)
                    ],
                    axis=2,
                )
                assert mx.array_equal(got[:, :, :126], wanted).item()


def test_the_device_route_assembles_the_same(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = extract_spec(model)
    _, payloads = segments(model, spec, "k6v5", [0, 64, 150])
    host = restore(spec, list(zip(payloads, [64, 20], strict=True)), headroom=300)
    for module in ("restore", "encoding"):
        monkeypatch.setattr(f"greenroom.runtime.{module}.host_route", lambda: False)
    device = restore(spec, list(zip(payloads, [64, 20], strict=True)), headroom=300)
    for one, two in zip(host, device, strict=True):
        assert one.keys is not None
        assert one.values is not None
        assert two.keys is not None
        assert two.values is not None
        assert one.keys.shape == two.keys.shape
        assert mx.array_equal(one.keys, two.keys).item()
        assert mx.array_equal(one.values, two.values).item()


def test_float_segments_continue_like_the_live_cache(model: Any) -> None:
    spec = extract_spec(model)
    live, payloads = segments(model, spec, "float", [0, 100, 150])
    restored = restore(spec, [(payloads[0], 100), (payloads[1], 50)], headroom=20)
    assert greedy(model, restored, 5, 12) == greedy(model, live, 5, 12)


def test_headroom_is_used_in_place(model: Any) -> None:
    spec = extract_spec(model)
    _, payloads = segments(model, spec, "q8", [0, 150])
    caches = restore(spec, [(payloads[0], 150)], headroom=300)
    before = nbytes(caches)
    assert before == 512 * spec.float_bytes_per_token
    mx.eval(model(mx.array([PROMPT + PROMPT]), cache=caches))
    assert caches[0].offset == 450
    assert nbytes(caches) == before


def test_nothing_restored_is_an_empty_cache(model: Any) -> None:
    caches = restore(extract_spec(model), [])
    assert all(cache.empty() for cache in caches)
    assert greedy(model, caches, 5, 3) == greedy(model, make_prompt_cache(model), 5, 3)


def test_a_cold_prompt_finds_room_for_all_of_it(model: Any) -> None:
    spec = extract_spec(model)
    caches = restore(spec, [], headroom=300)
    before = nbytes(caches)
    assert before == 512 * spec.float_bytes_per_token
    assert greedy(model, caches, 5, 3) == greedy(model, make_prompt_cache(model), 5, 3)
    assert nbytes(caches) == before


def test_impossible_cuts_are_refused(model: Any) -> None:
    spec = extract_spec(model)
    caches, payloads = segments(model, spec, "q8", [0, 150])
    for start, stop in ((-1, 5), (5, 5), (100, 151)):
        with pytest.raises(ValueError, match="rows"):
            slice_states(caches, start, stop)
    for used in (0, 151):
        with pytest.raises(ValueError, match="rows"):
            restore(spec, [(payloads[0], used)])
    other = CacheSpec(spec.layers[:1], 512)
    with pytest.raises(BadPayload):
        restore(other, [(payloads[0], 5)])
