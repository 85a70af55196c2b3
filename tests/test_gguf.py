"""The conversion: right weights (the model answers), right tokenizer, right refusals."""

import json
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.generate import generate_step
from tokenizers import Tokenizer

from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.gguf import convert
from greenroom.runtime.loader import LoadedModel, load, pick_device
from tests.tiny_gguf import write_gguf


@pytest.fixture(scope="module")
def loaded(default_model_path: Path) -> LoadedModel:
    return load(default_model_path, device=pick_device())


@pytest.fixture(scope="module")
def tokenizer(default_model_path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(default_model_path / "tokenizer.json"))


def test_the_default_model_knows_the_capital_of_france(loaded: LoadedModel) -> None:
    prompt = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
    )
    tokens: list[int] = []
    for token, _ in generate_step(mx.array(prompt), loaded.model, max_tokens=30):
        if token in loaded.tokenizer.eos_token_ids:
            break
        tokens.append(int(token))
    assert loaded.tokenizer.decode(tokens) == "The capital of France is Paris."


def test_blocks_stay_quantized_in_the_folder(default_model_path: Path) -> None:
    config = json.loads((default_model_path / "config.json").read_text())
    assert config["quantization"] == {
        "group_size": 32,
        "bits": 4,
        "model.embed_tokens": {"group_size": 32, "bits": 8},
    }
    assert config["tie_word_embeddings"] is True
    assert config["rms_norm_eps"] == 1e-05


def test_digits_are_single_and_bytes_come_back(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("in 2048").tokens == ["in", "Ġ", "2", "0", "4", "8"]
    assert tokenizer.encode("<|im_start|>user").ids[0] == 1
    assert tokenizer.encode("<|im_end|>").ids == [2]


@settings(max_examples=100)
# The vocabulary lacks the first bytes of planes 4 to 16, where no character is assigned.
@given(st.text(st.characters(max_codepoint=0x3FFFF, exclude_categories=["Cs", "Cc"])))
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_rows_of_q_and_k_go_from_pairs_to_halves(tmp_path: Path) -> None:
    arrays = write_gguf(tmp_path / "m.gguf")
    folder = tmp_path / "out"
    folder.mkdir()
    convert(tmp_path / "m.gguf", folder)
    got = mx.load(str(folder / "model.safetensors"))
    assert isinstance(got, dict)
    # Head 0 holds rows 0..3: neighbours (0, 1), (2, 3) become halves (0, 2), (1, 3).
    q = arrays["blk.0.attn_q.weight"][mx.array([0, 2, 1, 3, 4, 6, 5, 7])]
    k = arrays["blk.0.attn_k.weight"][mx.array([0, 2, 1, 3])]
    assert mx.array_equal(got["model.layers.0.self_attn.q_proj.weight"], q)
    assert mx.array_equal(got["model.layers.0.self_attn.k_proj.weight"], k)
    assert mx.array_equal(got["model.embed_tokens.weight"], arrays["token_embd.weight"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"general.architecture": "bert"}, "architecture 'bert'"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "tokenizer 'llama-bpe'"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    write_gguf(tmp_path / "m.gguf", **changes)
    with pytest.raises(ModelUnavailable, match=words):
        convert(tmp_path / "m.gguf", tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(50))
    with pytest.raises(ModelUnavailable, match="GGUF"):
        convert(tmp_path / "m.gguf", tmp_path)
