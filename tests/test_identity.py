"""What the headers of known clients say about who is speaking."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.identity import session_hint
from greenroom.runtime.names import validate_name
from greenroom.runtime.records import SessionHint

CLAUDE = {"x-claude-code-session-id": "5f1c"}


@pytest.mark.parametrize(
    ("headers", "name", "parent"),
    [
        (CLAUDE, "claude-code:5f1c", None),
        ({**CLAUDE, "x-claude-code-agent-id": "a1"}, "claude-code:5f1c:a1", "claude-code:5f1c"),
        (
            {
                **CLAUDE,
                "x-claude-code-agent-id": "a2",
                "x-claude-code-parent-agent-id": "a1",
                "x-session-id": "of another family",
            },
            "claude-code:5f1c:a2",
            "claude-code:5f1c:a1",
        ),
        ({"session-id": "s"}, "codex:s", None),
        ({"session_id": "s"}, "codex:s", None),
        ({"session-id": "s", "thread-id": "t"}, "codex:s:t", "codex:s"),
        (
            {"session-id": "s", "thread-id": "u", "x-codex-parent-thread-id": "t"},
            "codex:s:u",
            "codex:s:t",
        ),
        ({"x-session-id": "ses_b", "x-session-affinity": "ses_b"}, "session:ses_b", None),
        (
            {"x-session-id": "ses_b", "x-parent-session-id": "ses_a"},
            "session:ses_b",
            "session:ses_a",
        ),
        ({"x-session-affinity": "ses_c"}, "session:ses_c", None),
        (
            {"x-dynamo-session-id": "d", "x-dynamo-parent-session-id": "c"},
            "dynamo:d",
            "dynamo:c",
        ),
    ],
)
def test_client_families(headers: dict[str, str], name: str, parent: str | None) -> None:
    assert session_hint(headers) == SessionHint(name=name, parent=parent)


def test_a_conversation_is_a_session_of_who_has_no_other() -> None:
    assert session_hint({}, None, "conv_1") == SessionHint(name="conversation:conv_1")
    assert session_hint({"session-id": "s"}, None, "conv_1") == SessionHint(name="codex:s")
    odd = session_hint({}, "key", "a b/" * 100)
    assert odd is not None
    assert odd.cache_key == "key"
    assert odd.name == validate_name(odd.name or "")


def test_the_last_request_of_a_session() -> None:
    headers = {"x-dynamo-session-id": "d", "x-dynamo-session-final": "True"}
    assert session_hint(headers) == SessionHint(name="dynamo:d", final=True)


def test_who_says_nothing() -> None:
    assert session_hint({"x-session-id": " ", "thread-id": "t", "user-agent": "x"}) is None
    assert session_hint({}, "key") == SessionHint(cache_key="key")
    assert session_hint({"session-id": "s"}, "key") == SessionHint(name="codex:s", cache_key="key")


values = st.text(min_size=1, max_size=300).filter(lambda v: v.strip())


@given(values, values, values)
def test_whatever_a_client_sends_is_a_name_and_pairs_stay_apart(
    session: str, one: str, two: str
) -> None:
    names = set()
    for agent in (one.strip(), two.strip()):
        headers = {"x-claude-code-session-id": session, "x-claude-code-agent-id": agent}
        hint = session_hint(headers)
        assert hint is not None
        assert hint.name is not None
        assert validate_name(hint.name) == hint.name
        names.add(hint.name)
    legal = all(":" not in each for each in (session, one, two))
    if legal and one.strip() != two.strip() and one.isascii() and two.isascii():
        assert len(names) == 2
