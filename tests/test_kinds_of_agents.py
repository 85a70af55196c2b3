"""Agents of models that forget: whole turns, through actors and disk, restarted or not."""

from pathlib import Path
from typing import Any

import pytest
import uvloop

from greenroom.actors.app import open_house
from greenroom.actors.custodian_messages import Tidy
from greenroom.actors.ongoing import opened
from greenroom.runtime.index import Index
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import ChatMessage, Sampling, TurnDone, TurnRequest
from greenroom.runtime.vault import Vault
from tests.menagerie import config_of
from tests.zoo import save_checkpoint

SYSTEM = ChatMessage("system", "You are Bob. " * 8)
QUESTIONS = ("Where were we?", "Who said that?", "And then, what did they all do?")


@pytest.fixture(scope="module", params=["gemma3_text", "qwen3_next"])
def model(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    default_model_path: Path,
) -> Path:
    config = {**config_of(request.param), "model_type": request.param, "vocab_size": 49152}
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    return save_checkpoint(folder, default_model_path, config)


def settings(home: Path, model: Path) -> Any:
    overrides = {"home": str(home), "model.name": str(model), "stage.schedule": "fixed"}
    return load_settings(overrides=overrides).settings


async def ask(
    settings: Any, questions: tuple[str, ...], stop: tuple[str, ...], *, tidy: bool = False
) -> list[TurnDone]:
    """The ends of as many turns, in one house."""
    ends: list[TurnDone] = []
    async with open_house(settings) as house:
        for question in questions:
            request = TurnRequest(
                messages=(SYSTEM, ChatMessage("user", question))
                if question == QUESTIONS[0]
                else (ChatMessage("user", question),),
                mode="say",
                agent="bob",
                max_tokens=20,
                stop=stop,
                sampling=Sampling(temperature=0),
            )
            async with opened(house, request) as turn:
                ends += [event async for event in turn if isinstance(event, TurnDone)]
            if tidy:
                custodian: Any = house.system.get("custodian")
                await custodian.ask(Tidy())
    return ends


@pytest.mark.parametrize("stop", [(), ("e",)], ids=["whole", "cut"])
def test_a_restart_changes_nothing(model: Path, tmp_path: Path, stop: tuple[str, ...]) -> None:
    unharmed = uvloop.run(ask(settings(tmp_path / "unharmed", model), QUESTIONS, stop))
    restarted = [
        end
        for question in QUESTIONS
        for end in uvloop.run(ask(settings(tmp_path / "restarted", model), (question,), stop))
    ]
    assert [e.text for e in restarted] == [e.text for e in unharmed]
    assert [e.usage for e in restarted] == [e.usage for e in unharmed]
    assert all(e.usage.cached_tokens > 30 for e in unharmed[1:])
    if stop:
        assert any(e.finish_reason == "stop" for e in unharmed)
    else:
        before = [e.usage.prompt_tokens + e.usage.completion_tokens for e in unharmed]
        assert [e.usage.cached_tokens for e in unharmed[1:]] == before[:-1]


def test_superseded_states_go_and_nothing_changes(model: Path, tmp_path: Path) -> None:
    """Seven turns with a round of the custodian after each, the last two after a restart."""
    more = (*QUESTIONS, *(f"And {n}?" for n in range(4)))
    unharmed = uvloop.run(ask(settings(tmp_path / "unharmed", model), more, ()))
    tidied = uvloop.run(ask(settings(tmp_path / "tidied", model), more[:5], (), tidy=True))
    tidied += uvloop.run(ask(settings(tmp_path / "tidied", model), more[5:], (), tidy=True))
    assert [e.text for e in tidied] == [e.text for e in unharmed]
    assert [e.usage for e in tidied] == [e.usage for e in unharmed]

    def states(home: Path) -> int:
        return len(list((home / "store").rglob("*.state.safetensors")))

    assert states(tmp_path / "unharmed") == 2 * len(more) + 1
    assert states(tmp_path / "tidied") < 2 * len(more)
    check_bytes(tmp_path / "unharmed" / "store")


def check_bytes(store: Path) -> None:
    """A turn writes its encoded tokens and constant tails and states, and at most 16 KiB more."""
    index = Index(store)
    contents = index.load_all()
    index.close()
    vault = Vault(store)
    sizes: list[int] = []
    for each in contents.segments:
        state = vault.state_path(each.id).stat().st_size
        total = vault.path(each.id).stat().st_size + state
        assert total <= each.num_bytes + (8 << 10), "a turn has two segments"
        if each.kind == "generation":
            sizes.append(state)
    assert max(sizes[3:]) < min(sizes[3:]) + (4 << 10), "it does not grow with the context"
