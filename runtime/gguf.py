"""From a llama-architecture GGUF file to a folder that mlx-lm loads.

The block quantization is kept: GGUF's Q4_1 and Q8_0 blocks of 32 are MLX's affine groups of 32,
and ``mx.load`` hands them over as weight, scales and biases. Format: the ggml project's
``docs/gguf.md``.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from greenroom.runtime.errors import ModelUnavailable

_GROUP_SIZE: Final = 32
_CONTROL_TOKEN: Final = 3
_USER_TOKEN: Final = 4

_TOP: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class _Shape(NamedTuple):
    """Sizes that the converter needs, in heads and elements."""

    num_heads: int
    num_kv_heads: int
    hidden_size: int


def convert(gguf: Path, folder: Path) -> None:
    """Write the model in ``gguf`` into the existing, empty ``folder`` in mlx-lm's layout.

    Raises ``ModelUnavailable`` when the architecture or the tokenizer is not one that this
    converter knows.
    """
    arrays, meta = cast("tuple[dict[str, mx.array], dict[str, Any]]", _read(gguf))
    if meta.get("general.architecture") != "llama":
        raise ModelUnavailable(
            f"{gguf.name} has the architecture {meta.get('general.architecture')!r}; "
            "only llama GGUF files can be converted"
        )
    config = _config(meta)
    shape = _Shape(
        config["num_attention_heads"], config["num_key_value_heads"], config["hidden_size"]
    )
    weights = {_name(key): _unpermuted(key, array, shape) for key, array in arrays.items()}
    config["tie_word_embeddings"] = "lm_head.weight" not in weights
    config["quantization"] = _quantization(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    _dump(folder / "config.json", config)
    _write_tokenizer(folder, meta)


def _read(gguf: Path) -> object:
    try:
        return mx.load(str(gguf), format="gguf", return_metadata=True)
    except (RuntimeError, ValueError) as error:
        raise ModelUnavailable(f"{gguf.name} cannot be read as GGUF: {error}") from error


def _config(meta: dict[str, Any]) -> dict[str, Any]:
    num_heads = int(meta["llama.attention.head_count"])
    hidden_size = int(meta["llama.embedding_length"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": int(meta["tokenizer.ggml.bos_token_id"]),
        "eos_token_id": int(meta["tokenizer.ggml.eos_token_id"]),
        "pad_token_id": int(meta["tokenizer.ggml.padding_token_id"]),
        "head_dim": int(meta.get("llama.attention.key_length", hidden_size // num_heads)),
        "hidden_size": hidden_size,
        "intermediate_size": int(meta["llama.feed_forward_length"]),
        "max_position_embeddings": int(meta["llama.context_length"]),
        "num_attention_heads": num_heads,
        "num_hidden_layers": int(meta["llama.block_count"]),
        "num_key_value_heads": int(meta.get("llama.attention.head_count_kv", num_heads)),
        # Single precision in the file, decimal in intent: 9.999999747e-06 is 1e-05.
        "rms_norm_eps": float(f"{float(meta['llama.attention.layer_norm_rms_epsilon']):.6g}"),
        "rope_theta": float(meta.get("llama.rope.freq_base", 10000.0)),
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
    }


def _name(key: str) -> str:
    """``blk.3.attn_q.weight`` becomes ``model.layers.3.self_attn.q_proj.weight``."""
    stem, _, kind = key.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    parts = stem.split(".")
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in _BLOCK:
        return f"model.layers.{parts[1]}.{_BLOCK[parts[2]]}.{kind}"
    raise ModelUnavailable(f"the GGUF file holds a tensor that llama models do not have: {key}")


def _unpermuted(key: str, array: mx.array, shape: _Shape) -> mx.array:
    """GGUF pairs neighbouring rows for its rotary kernel; MLX pairs the halves of a head.

    Rows move whole, so packed weights, scales and biases move alike.
    """
    if ".attn_q." in key:
        heads = shape.num_heads
    elif ".attn_k." in key:
        heads = shape.num_kv_heads
    else:
        return array
    rows, columns = array.shape
    paired = array.reshape(heads, rows // heads // 2, 2, columns)
    return mx.contiguous(paired.swapaxes(1, 2).reshape(rows, columns))


def _quantization(weights: dict[str, mx.array]) -> dict[str, Any]:
    """mlx-lm's ``quantization`` entry: one default, and each weight that differs by name."""
    bits_of = {
        key.removesuffix(".scales"): 32
        * weights[key.replace("scales", "weight")].shape[-1]
        // (array.shape[-1] * _GROUP_SIZE)
        for key, array in weights.items()
        if key.endswith(".scales")
    }
    counts = list(bits_of.values())
    usual = max(set(counts), key=counts.count, default=4)
    odd = {
        path: {"group_size": _GROUP_SIZE, "bits": bits}
        for path, bits in sorted(bits_of.items())
        if bits != usual
    }
    return {"group_size": _GROUP_SIZE, "bits": usual, **odd}


def _write_tokenizer(folder: Path, meta: dict[str, Any]) -> None:
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    _tokenizer(meta, tokens).save(str(folder / "tokenizer.json"), pretty=False)
    bos, eos, pad, unk = (
        tokens[int(meta[f"tokenizer.ggml.{kind}_token_id"])]
        for kind in ("bos", "eos", "padding", "unknown")
    )
    special = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "unk_token": unk}
    _dump(folder / "special_tokens_map.json", special)
    _dump(
        folder / "tokenizer_config.json",
        {
            **special,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": int(meta["llama.context_length"]),
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": meta["tokenizer.chat_template"],
        },
    )
    (folder / "chat_template.jinja").write_text(meta["tokenizer.chat_template"], "utf-8")
    _dump(
        folder / "generation_config.json",
        {
            "bos_token_id": int(meta["tokenizer.ggml.bos_token_id"]),
            "eos_token_id": int(meta["tokenizer.ggml.eos_token_id"]),
            "pad_token_id": int(meta["tokenizer.ggml.padding_token_id"]),
        },
    )


def _tokenizer(meta: dict[str, Any], tokens: list[str]) -> Tokenizer:
    """Byte-level BPE; ``smollm`` sets every digit apart first."""
    if (meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre")) != ("gpt2", "smollm"):
        raise ModelUnavailable(
            f"the GGUF file's tokenizer {meta.get('tokenizer.ggml.pre')!r} is not known here"
        )
    merges = [
        (left, right)
        for left, _, right in (merge.partition(" ") for merge in meta["tokenizer.ggml.merges"])
    ]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = meta["tokenizer.ggml.token_type"].tolist()
    for token, kind in zip(tokens, kinds, strict=True):
        if kind == _CONTROL_TOKEN:
            tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif kind == _USER_TOKEN:
            tokenizer.add_tokens([AddedToken(token, normalized=False)])
    return tokenizer


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":  # python -m greenroom.runtime.gguf FILE FOLDER
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
