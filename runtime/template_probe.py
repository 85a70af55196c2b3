"""What a chat template does, found out by rendering small conversations when a model is loaded.

Two questions: what it does not take as it comes (``Traits``), and where a prompt is not the
beginning of the prompt that continues it (``Finding``), so that what was computed for the one is
partly lost to the other. https://arxiv.org/abs/2312.07104 on why prefixes are worth keeping.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from mlx_lm.tokenizer_utils import TokenizerWrapper

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.frame import PLAIN, Frame
from greenroom.runtime.placement import Traits
from greenroom.runtime.records import ChatMessage, Tool, ToolCall
from greenroom.runtime.template import Template

# Words that no template prints of its own accord.
_SYSTEM, _LATE, _RESULT, _OTHER = "Zephyrine", "Quillwort", "Bramblecote", "Marrowfat"
_TOOL = Tool(
    "look_up_ostrich",
    "Looks something up.",
    {"type": "object", "properties": {"about": {"type": "string"}}, "required": ["about"]},
)
_CALL = ToolCall("a1b2c3d4e", "fetch_wombat", '{"wombat_key": 1}')
_SECOND = ToolCall("f5g6h7i8j", "fetch_numbat", '{"numbat_key": 2}')
_LONG_ID = "call_0123456789abcdef"
_ASK = ChatMessage("user", "What is it?")
_MORE = ChatMessage("user", "And then?")
_ANSWER = ChatMessage("assistant", "It is so.")
_THOUGHT = ChatMessage("assistant", "It is so.", reasoning="Let me see.")


class Finding(msgspec.Struct, frozen=True):
    """A place where a prompt does not go on as it was.

    In a conversation of the given ``shape`` the prompt before ``message`` (counted from 0) has
    ``num_characters``, of which the next prompt repeats the first ``num_kept``; there ``before``
    becomes ``after``.
    """

    shape: str
    message: int
    num_characters: int
    num_kept: int
    before: str
    after: str


class TemplateReport(msgspec.Struct, frozen=True):
    """What was found out about a template: ``is_dated`` when it prints the date."""

    traits: Traits
    is_dated: bool
    findings: tuple[Finding, ...]

    def lines(self) -> tuple[str, ...]:
        """The same in words, one line for each thing worth knowing; empty for a plain template."""
        words = [words for name, words in _IN_WORDS.items() if not getattr(self.traits, name)]
        if self.is_dated:
            words.append("it prints the date: each agent keeps the one it was made on")
        return (*words, *(_told(finding) for finding in self.findings))


_IN_WORDS: Mapping[str, str] = {
    "system": "it has no system prompt: that goes in front of what the first user says",
    "late_system": "it takes a system message in front only: later ones are said by the user",
    "consecutive": "it wants users and assistants to alternate: neighbours become one message",
    "tools": "it prints no tools: they are told in the system prompt",
    "calls": "it prints no calls of tools: they are told as text",
    "many_calls": "it takes one call at a time: several are told one after another",
    "any_call_id": "it wants call ids of nine letters or digits: others are replaced",
    "results": "it prints no answers of tools: they are told by the user",
}


def probe(tokenizer: TokenizerWrapper) -> tuple[Template, TemplateReport]:
    """The tokenizer's template with its traits, and what was found out about it.

    Some dozens of renderings of a few words each: milliseconds.
    """
    template = Template(tokenizer)
    template = template.with_traits(_traits(template.render))
    return template, TemplateReport(
        template.traits, template.is_dated, tuple(_departures(template))
    )


def _traits(render: Callable[[Sequence[ChatMessage], Frame], str]) -> Traits:
    def prints(messages: Sequence[ChatMessage], *words: str, tools: Sequence[Tool] = ()) -> bool:
        try:
            text = render(messages, Frame(tuple(tools)))
        except InvalidRequest:
            return False
        return all(word in text for word in words)

    def calling(*calls: ToolCall) -> list[ChatMessage]:
        asked = [_ASK, ChatMessage("assistant", "", tool_calls=calls)]
        answers = [ChatMessage("tool", f"{_RESULT} {c.id}", tool_call_id=c.id) for c in calls]
        return [*asked, *answers]

    late = ChatMessage("system", _LATE)
    calls = prints(calling(_CALL), _CALL.name, "wombat_key", tools=[_TOOL])
    long_id = msgspec.structs.replace(_CALL, id=_LONG_ID)
    several = calling(_CALL, _SECOND)
    return Traits(
        system=prints([ChatMessage("system", _SYSTEM), _ASK], _SYSTEM),
        late_system=prints([_ASK, _ANSWER, late, _MORE], _LATE, _MORE.content),
        consecutive=prints([_ASK, ChatMessage("user", _OTHER)], _ASK.content, _OTHER),
        tools=prints([_ASK], _TOOL.name, "about", tools=[_TOOL]),
        calls=calls,
        many_calls=not calls or prints(several, _CALL.name, _SECOND.name, tools=[_TOOL]),
        any_call_id=not calls or prints(calling(long_id), _CALL.name, tools=[_TOOL]),
        results=calls and prints(calling(_CALL), _RESULT, tools=[_TOOL]),
    )


def _shapes() -> Mapping[str, tuple[Frame, list[ChatMessage]]]:
    system = ChatMessage("system", "Be brief.")
    talk = [_ASK, _ANSWER, _MORE, _ANSWER, _ASK]
    calling = ChatMessage("assistant", "", tool_calls=(_CALL,))
    result = ChatMessage("tool", "It is 5.", tool_call_id=_CALL.id)
    thinking = ChatMessage("assistant", "", tool_calls=(_CALL,), reasoning="Let me look.")
    with_tools = Frame((_TOOL,))
    return {
        "plain": (PLAIN, talk),
        "system": (PLAIN, [system, *talk]),
        "tools": (with_tools, [system, _ASK, calling, result, _ANSWER, _MORE, _ANSWER, _ASK]),
        "users in a row": (PLAIN, [_ASK, _MORE, _ANSWER, _ASK, _MORE, _ANSWER, _ASK]),
        "reasoning": (PLAIN, [_ASK, _THOUGHT, _MORE, _THOUGHT, _ASK]),
        "reasoning and tools": (with_tools, [_ASK, thinking, result, _THOUGHT, _MORE]),
    }


def _departures(template: Template) -> list[Finding]:
    found: list[Finding] = []
    for shape, (frame, messages) in _shapes().items():
        for at, message in enumerate(messages):
            # A prompt ends before an answer; what it must begin is the prompt after the answer.
            if message.role != "assistant":
                continue
            stop = next(
                (n for n in range(at + 2, len(messages)) if messages[n].role == "assistant"),
                len(messages),
            )
            try:
                before = template.render(messages[:at], frame)
                after = template.render(messages[:stop], frame)
            except InvalidRequest as error:
                found.append(Finding(shape, at, 0, 0, str(error), ""))
                continue
            if not after.startswith(before):
                found.append(_departure(shape, at, before, after))
    return found


def _departure(shape: str, at: int, before: str, after: str) -> Finding:
    pairs = enumerate(zip(before, after, strict=False))
    kept = next((n for n, (a, b) in pairs if a != b), min(len(before), len(after)))
    return Finding(shape, at, len(before), kept, before[kept : kept + 24], after[kept : kept + 24])


def _told(finding: Finding) -> str:
    if not finding.num_characters:
        return f"{finding.shape}: {finding.before}"
    return (
        f"{finding.shape}: the prompt before message {finding.message} is kept up to character "
        f"{finding.num_kept} of {finding.num_characters}, where {finding.before!r} becomes "
        f"{finding.after!r}"
    )
