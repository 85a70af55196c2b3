"""The trial at load, on architectures of mlx-lm that batch rightly, wrongly and not at all."""

from pathlib import Path

import pytest

from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.trial import record, serves_rows_together
from tests.menagerie import config_of
from tests.zoo import build


@pytest.mark.parametrize(
    "name", ["llama", "gemma3_text", "qwen3_next", "mamba2", "gpt_oss", "longcat_flash_ngram"]
)
def test_models_that_batch_rightly_pass(name: str) -> None:
    assert serves_rows_together(build(name, config_of(name)))


@pytest.mark.parametrize("name", ["gemma2", "afm7"])
def test_models_that_err_in_the_padded_row_are_found_out(name: str) -> None:
    assert not serves_rows_together(build(name, config_of(name)))


@pytest.mark.parametrize(("name", "together"), [("llama", True), ("gemma2", False)])
def test_a_verdict_is_kept_for_these_weights_and_versions(
    name: str, together: bool, tmp_path: Path
) -> None:
    verdict = record(tmp_path / "trials", "f" * 32, "cpu")
    model = build(name, config_of(name))
    assert serves_rows_together(model, verdict) is together
    other = build("gpt_bigcode", config_of("gpt_bigcode"))
    assert serves_rows_together(other, verdict) is together, "not tried again"
    with pytest.raises(ModelUnavailable):
        serves_rows_together(other, record(tmp_path / "trials", "e" * 32, "cpu"))
    verdict.write_text("")  # as a crash may leave it
    assert serves_rows_together(model, verdict) is together


def test_a_model_that_cannot_decode_in_a_batch_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="cannot decode in a batch"):
        serves_rows_together(build("gpt_bigcode", config_of("gpt_bigcode")))
