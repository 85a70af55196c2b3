"""A catalog entry's claims about caches, against models that are as it says, or are not."""

from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from greenroom.actors.app import make_stage
from greenroom.runtime.catalog import CacheClaims, LocalFolder, ModelEntry, load_catalog
from greenroom.runtime.claims import check_claims
from greenroom.runtime.errors import ModelUnavailable, SettingsError
from greenroom.runtime.job import Job, JobDone
from greenroom.runtime.layers import load_settings
from greenroom.runtime.loader import load
from greenroom.runtime.spec import extract_spec
from tests.menagerie import config_of
from tests.tiny import GREEDY
from tests.zoo import build, save_checkpoint

SPECS = {
    name: extract_spec(build(name, config_of(name)), {"max_position_embeddings": 2048})
    for name in ("gemma3_text", "qwen3_next")
}
GEMMA = {"full": 1, "window": 1, "window_tokens": 8, "heads": 2, "k_dim": 16, "v_dim": 16}


def test_claims_that_hold_say_nothing() -> None:
    check_claims(CacheClaims(), SPECS["qwen3_next"])
    check_claims(CacheClaims(full=1, state=1), SPECS["qwen3_next"])
    check_claims(CacheClaims(**GEMMA, codec=None), SPECS["gemma3_text"])


@pytest.mark.parametrize("field", GEMMA)
def test_a_wrong_claim_refuses_the_model_and_names_the_field(field: str) -> None:
    wrong = msgspec.structs.replace(CacheClaims(), **{field: GEMMA[field] + 1})
    said = rf"cache\.{field} = {GEMMA[field] + 1}, but the model has {GEMMA[field]}"
    with pytest.raises(ModelUnavailable, match=said):
        check_claims(wrong, SPECS["gemma3_text"])


def test_a_window_that_is_not_there_is_missed() -> None:
    with pytest.raises(ModelUnavailable, match="but the model has none"):
        check_claims(CacheClaims(window_tokens=8), SPECS["qwen3_next"])


def test_the_default_models_entry_holds(default_model_path: Path) -> None:
    claims = load_catalog().entries["smollm2-135m"].cache
    loaded = load(default_model_path, device="cpu")
    check_claims(claims, extract_spec(loaded.model, loaded.config))
    assert claims.full == 30


def test_an_unknown_claim_is_a_mistake_in_the_entry() -> None:
    text = files("greenroom.config").joinpath("models/smollm2-135m.toml").read_text()
    with pytest.raises(msgspec.ValidationError, match="fulll"):
        msgspec.toml.decode(text.replace("full = 30", "fulll = 30"), type=ModelEntry)


@pytest.fixture(scope="module")
def gemma2(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    config = {**config_of("gemma2"), "model_type": "gemma2", "vocab_size": 49152}
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    return save_checkpoint(folder, default_model_path, config)


def codec_used(model: Path, home: Path, claims: CacheClaims, codec: str = "auto") -> str:
    """The codec that the segments of a stage for ``model`` carry."""
    entry = ModelEntry("odd", "Odd", LocalFolder(str(model)), cache=claims)
    overrides = {"home": str(home), "memory.codec": codec}
    settings = load_settings(overrides=overrides).settings
    done: list[JobDone] = []
    stage, _ = make_stage(
        settings,
        entry,
        model,
        None,
        lambda uid, event: done.append(event) if isinstance(event, JobDone) else None,
    )
    job = Job(
        tokens=(1, 2, 3),
        pieces=(),
        encode_from=0,
        boundaries=(3,),
        max_tokens=1,
        stop_tokens=(),
        sampling=GREEDY,
    )
    stage.submit(1, job)
    stage.step()
    stage.finish(1, 0)
    return done[0].segments[0].payload.codec


def test_an_entry_may_choose_the_codec_where_the_settings_do_not(
    gemma2: Path, tmp_path: Path
) -> None:
    assert codec_used(gemma2, tmp_path, CacheClaims(codec="q8")) == "q8/1"
    assert codec_used(gemma2, tmp_path, CacheClaims(codec="q8"), "k8v4") == "k8v4/1"
    with pytest.raises(SettingsError, match="unknown codec 'q3'"):
        codec_used(gemma2, tmp_path, CacheClaims(codec="q3"))
    with pytest.raises(ModelUnavailable, match=r"cache\.full = 7"):
        codec_used(gemma2, tmp_path, CacheClaims(full=7))


def test_a_model_that_errs_in_a_batch_is_served_one_at_a_time(
    gemma2: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    codec_used(gemma2, tmp_path, CacheClaims())
    assert "odd gives other logits in a batch than alone" in caplog.text
