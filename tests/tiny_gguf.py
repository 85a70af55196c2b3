"""A GGUF file of a random llama, a few kilobytes large, for tests of what handles such files."""

from pathlib import Path

import mlx.core as mx
import numpy as np

Value = mx.array | str | list[str]


def write_gguf(path: Path, **changes: Value) -> dict[str, mx.array]:
    """Write a llama with two heads of four and one layer to ``path``; return its arrays.

    ``changes`` override metadata.
    """
    random = np.random.default_rng(3)
    shapes = {
        "token_embd.weight": (8, 8),
        "output_norm.weight": (8,),
        "blk.0.attn_q.weight": (8, 8),
        "blk.0.attn_k.weight": (4, 8),
    }
    arrays = {k: mx.array(random.normal(size=s).astype(np.float32)) for k, s in shapes.items()}
    mx.save_gguf(str(path), arrays, {**_metadata(), **changes})
    return arrays


def _metadata() -> dict[str, Value]:
    numbers = {
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.block_count": 1,
        "llama.context_length": 64,
        "llama.embedding_length": 8,
        "llama.feed_forward_length": 16,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return {
        **{key: mx.array(number, mx.uint32) for key, number in numbers.items()},
        "general.architecture": "llama",
        "llama.attention.layer_norm_rms_epsilon": mx.array(1e-5, mx.float32),
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.token_type": mx.array([3] + [1] * 7, mx.int32),
        "tokenizer.ggml.tokens": ["<e>", *"abcdef", "ab"],
    }
