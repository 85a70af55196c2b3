"""What is left out of system prompts, by the rule that comes with the settings."""

import pytest

from greenroom.runtime.errors import SettingsError
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.volatile import Volatile
from tests.house import settings

HEADER = "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=sdk-cli; cch=36ee5;"


@pytest.fixture
def volatile() -> Volatile:
    return Volatile(settings().template.volatile)


@pytest.mark.parametrize("between", ["\n", "", "\n\n"])
def test_a_line_about_billing_is_left_out_with_all_that_changes(
    volatile: Volatile, between: str
) -> None:
    rest = volatile.clean(f"{HEADER}{between}You are a coding agent.\nBe brief.")
    assert rest.strip() == "You are a coding agent.\nBe brief."
    other = HEADER.replace("36ee5", "0aaa9").replace("01c", "ff0")
    assert volatile.clean(f"{other}{between}You are a coding agent.\nBe brief.") == rest


def test_only_system_prompts_are_touched(volatile: Volatile) -> None:
    said = ChatMessage("user", HEADER)
    assert volatile.left_out([ChatMessage("system", HEADER + "\nBe brief."), said]) == (
        ChatMessage("system", "Be brief."),
        said,
    )
    assert volatile.left_out([ChatMessage("system", HEADER), said]) == (said,)
    empty = ChatMessage("system", "")
    assert volatile.left_out([empty, said]) == (empty, said)
    assert volatile.clean("The x-anthropic-billing-header is a header.") == (
        "The x-anthropic-billing-header is a header."
    )


def test_a_pattern_that_is_none_is_told_at_the_start() -> None:
    with pytest.raises(SettingsError, match="no regular expression"):
        Volatile(["("])
