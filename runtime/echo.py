"""What a client sends back of what an agent has said: the same words, seldom the same text. Pure.

Clients strip spaces, drop reasoning, write the arguments of calls anew. What is recognised as the
agent's own is put back as it was, so that its tokens need not be computed again.
"""

from collections.abc import Sequence

import msgspec

from greenroom.runtime.records import ChatMessage, ToolCall


def restored(told: Sequence[ChatMessage], remembered: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The history as it is told, with what is remembered wherever the two say the same.

    They are compared from the beginning to the first message that says something else: from there
    on the history is another one.
    """
    restored = list(told)
    for n, (theirs, ours) in enumerate(zip(told, remembered, strict=False)):
        if not says_the_same(theirs, ours):
            break
        restored[n] = ours
    return restored


def says_the_same(theirs: ChatMessage, ours: ChatMessage) -> bool:
    """Whether one message is what a client would make of the other.

    Only what an assistant said is taken at less than its word.
    """
    if theirs.role != "assistant" or ours.role != "assistant":
        return theirs == msgspec.structs.replace(ours, key=theirs.key)
    return (
        theirs.content.strip() == ours.content.strip()
        and (theirs.reasoning or "").strip() in ("", (ours.reasoning or "").strip())
        and len(theirs.tool_calls) == len(ours.tool_calls)
        and all(map(_same_call, theirs.tool_calls, ours.tool_calls))
    )


def _same_call(theirs: ToolCall, ours: ToolCall) -> bool:
    return (theirs.id, theirs.name) == (ours.id, ours.name) and (
        theirs.arguments == ours.arguments or _parsed(theirs) == _parsed(ours)
    )


def _parsed(call: ToolCall) -> object:
    try:
        return msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return call.arguments
