"""Chat templates with the manners of well-known models, and a tokenizer that has one of them.

The templates are written for these tests: each does what is peculiar to its model (see
docs/templates.md), in words of its own. The tokenizer is the default model's real one, taught the
special tokens that the template uses.
"""

import re
from functools import cache
from pathlib import Path

from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer

from greenroom.runtime.text import Text

FOLDER = Path(__file__).parent / "templates"
FAMILIES = tuple(sorted(path.stem for path in FOLDER.glob("*.jinja")))
_SPECIAL = re.compile(
    r"<\|\w+\|>|<(?:start|end)_of_turn>|</?think>|</?tool_call>|\[/?[A-Z_]+\](?!\w)"
)
_ENDS = {
    "llama31": ("<|begin_of_text|>", "<|eot_id|>"),
    "gemma2": ("<bos>", "<end_of_turn>"),
    "gemma3": ("<bos>", "<end_of_turn>"),
    "deepseek_v2": ("<|begin_of_sentence|>", "<|end_of_sentence|>"),
    "gpt_oss": ("<|startoftext|>", "<|return|>"),
    "mistral": ("<s>", "</s>"),
}


def source(family: str) -> str:
    """The family's template."""
    return (FOLDER / f"{family}.jinja").read_text()


@cache
def tokenizer_of(model_path: Path, family: str) -> TokenizerWrapper:
    """The model's tokenizer with the manners of a family, made once."""
    template = source(family)
    begin, end = _ENDS.get(family, ("<|im_start|>", "<|im_end|>"))
    manners = {
        "chat_template": template,
        "bos_token": begin,
        "eos_token": end,
        "additional_special_tokens": sorted({*_SPECIAL.findall(template), begin, end}),
    }
    tokenizer: TokenizerWrapper = load_tokenizer(model_path, manners)
    return tokenizer


@cache
def text_of(model_path: Path, family: str) -> Text:
    """Its text side, made once."""
    return Text(tokenizer_of(model_path, family))
