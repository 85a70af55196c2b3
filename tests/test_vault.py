"""Segment files: what was written comes back; what was tampered with never does."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import KVCache, make_prompt_cache
from safetensors import safe_open

from greenroom.runtime.cache import slice_states
from greenroom.runtime.codec import CODECS, DEFAULT_CODEC, Payload
from greenroom.runtime.encoding import SegmentState, encode
from greenroom.runtime.restore import restore
from greenroom.runtime.segment_file import Damaged, Foreign, Missing, VaultError
from greenroom.runtime.segments import Segment, make_segment
from greenroom.runtime.spec import CacheSpec, LayerSpec, extract_spec
from greenroom.runtime.vault import Vault
from tests.test_cache import PROMPT, greedy, prefilled, tiny_llama, tiny_mla

SPEC = CacheSpec((LayerSpec("full", 2, 64, 16, "bfloat16"),), 64)


def sample(codec: str = "float", **over: Any) -> tuple[Segment, Payload]:
    mx.random.seed(3)
    state = tuple(mx.random.normal((1, 2, 9, dim)).astype(mx.bfloat16) for dim in (64, 16))
    payload = encode(CODECS[codec], SPEC, SegmentState(9, [(state[0], state[1])]))
    fields: dict[str, Any] = {
        "parent": "00" * 20,
        "start": 4,
        "tokens": range(9),
        "kind": "prompt",
        "namespace": "n",
        "fingerprint": "f",
        "codec": payload.codec,
        "messages": ({"role": "user", "content": "schön"},),
        "num_bytes": payload.num_bytes,
    }
    return make_segment(**{**fields, **over}), payload


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "store")


def assert_same(one: Payload, two: Payload) -> None:
    assert (one.codec, one.num_tokens) == (two.codec, two.num_tokens)
    assert one.arrays.keys() == two.arrays.keys()
    for name, array in one.arrays.items():
        assert array.dtype == two.arrays[name].dtype
        assert np.array_equal(array, two.arrays[name])


@pytest.mark.parametrize("codec", CODECS)
def test_a_segment_comes_back(vault: Vault, codec: str) -> None:
    segment, payload = sample(codec)
    assert vault.write(segment, payload) is True
    found, read = vault.read(segment.id)
    assert found == segment
    assert_same(read, payload)
    assert list(vault.ids()) == [segment.id]


def test_files_are_private_and_plain_safetensors(vault: Vault) -> None:
    segment, payload = sample("k6v5")
    vault.write(segment, payload)
    path = vault.path(segment.id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["segment"])["id"] == segment.id
        for name, array in payload.arrays.items():
            assert np.array_equal(file.get_tensor(name), array)
    assert vault.usage_bytes() == path.stat().st_size
    assert path.stat().st_size < payload.num_bytes + 2048


def test_the_first_bytes_stay(vault: Vault) -> None:
    segment, payload = sample()
    other = Payload(payload.codec, 9, {name: a + 1 for name, a in payload.arrays.items()})
    vault.write(segment, payload)
    assert vault.write(segment, other) is False
    assert_same(vault.read(segment.id)[1], payload)


def test_one_of_many_writers_wins_and_leaves_no_litter(vault: Vault, tmp_path: Path) -> None:
    segment, payload = sample()
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda _: vault.write(segment, payload), range(16)))
    assert sum(wins) == 1
    assert not list((tmp_path / "store" / "tmp").iterdir())
    assert vault.read(segment.id)[0] == segment


def test_missing(vault: Vault) -> None:
    with pytest.raises(Missing) as caught:
        vault.read("ab" * 20)
    assert caught.value.segment_id == "ab" * 20
    assert vault.delete("ab" * 20) == 0
    assert vault.quarantine("ab" * 20) is None


def test_every_truncation_is_found(vault: Vault) -> None:
    segment, payload = sample("q4")
    vault.write(segment, payload)
    path = vault.path(segment.id)
    whole = path.read_bytes()
    for size in {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(Damaged):
            vault.read(segment.id)


def test_every_flipped_bit_is_found(vault: Vault) -> None:
    """Any bit of the file: in the length, the header (spaces aside) or the arrays."""
    segment, payload = sample("q4")
    vault.write(segment, payload)
    path = vault.path(segment.id)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(8), *rng.integers(8, header, 300), *rng.integers(header, len(whole), 300)]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            found, read = vault.read(segment.id)
        except VaultError:
            continue
        # Only what says nothing, such as the padding of the header, may change unseen.
        assert found == segment
        assert_same(read, payload)
        assert place < header


def test_a_file_under_another_name_is_found(vault: Vault) -> None:
    segment, payload = sample()
    vault.write(segment, payload)
    other = vault.path(segment.id[:2] + "0" * 38)
    vault.path(segment.id).rename(other)
    with pytest.raises(Damaged):
        vault.read(other.stem)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    vault = Vault(tmp_path, fingerprint="f")
    segment, payload = sample()
    vault.write(segment, payload)
    assert vault.read(segment.id)[0] == segment
    stranger, payload = sample(fingerprint="g")
    vault.write(stranger, payload)
    with pytest.raises(Foreign):
        vault.read(stranger.id)
    path = vault.path(segment.id)
    path.write_bytes(path.read_bytes().replace(b"greenroom segment", b"somebody elses st"))
    with pytest.raises(Foreign):
        vault.read(segment.id)


def test_an_unknown_codec_is_foreign(vault: Vault) -> None:
    segment, payload = sample()
    segment = make_segment(
        parent=None,
        start=0,
        tokens=[1],
        kind="prompt",
        namespace="n",
        fingerprint="f",
        codec="zip/7",
    )
    vault.write(segment, payload)
    with pytest.raises(Foreign, match="zip/7"):
        vault.read(segment.id)


def test_quarantine_and_delete(vault: Vault) -> None:
    segment, payload = sample()
    vault.write(segment, payload)
    size = vault.usage_bytes()
    aside = vault.quarantine(segment.id)
    assert aside is not None
    assert aside.exists()
    assert vault.usage_bytes() == size
    with pytest.raises(Missing):
        vault.read(segment.id)
    assert vault.write(segment, payload) is True
    assert vault.delete(segment.id) == size
    assert list(vault.ids()) == []


def test_interrupted_writes_are_cleared(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "store" / "tmp" / "half").write_bytes(b"x" * 10)
    assert vault.usage_bytes() == 10
    assert vault.clear_temporary() == 1
    assert vault.usage_bytes() == 0


@pytest.mark.parametrize("codec", ["float", DEFAULT_CODEC, "q4", "k5v4r"])
@pytest.mark.parametrize("build", [tiny_llama, tiny_mla], ids=["llama", "mla"])
def test_reloaded_memory_goes_on_exactly_like_hot_memory(
    vault: Vault, codec: str, build: Any
) -> None:
    mx.random.seed(5)
    model = build()
    mx.eval(model.parameters())
    spec = extract_spec(model)
    live = prefilled(model, PROMPT)
    hot: list[tuple[Payload, int]] = []
    cold: list[tuple[Payload, int]] = []
    parent = None
    for start, stop, used in ((0, 100, 90), (90, 150, 60)):
        payload = encode(CODECS[codec], spec, slice_states(live, start, stop))
        segment = make_segment(
            parent=parent,
            start=start,
            tokens=PROMPT[start:stop],
            kind="prompt",
            namespace="n",
            fingerprint="f",
            codec=payload.codec,
        )
        vault.write(segment, payload)
        hot.append((payload, used))
        cold.append((vault.read(segment.id)[1], used))
        parent = segment.id
    one, two = restore(spec, hot, 20), restore(spec, cold, 20)
    for mine, theirs in zip(one, two, strict=True):
        assert mx.array_equal(rows(mine), rows(theirs)).item()
    tokens = greedy(model, one, 5, 12)
    assert tokens == greedy(model, two, 5, 12)
    if codec == "float":
        fresh: list[KVCache] = make_prompt_cache(model)
        mx.eval(model(mx.array([PROMPT]), cache=fresh))
        assert tokens == greedy(model, fresh, 5, 12)


def rows(cache: KVCache) -> mx.array:
    assert cache.keys is not None
    assert cache.values is not None
    flat = [part[..., : cache.offset, :].reshape(-1) for part in (cache.keys, cache.values)]
    return mx.concatenate(flat)
