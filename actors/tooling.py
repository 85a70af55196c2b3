"""Reading a request's tools, which of them must be called, and the form of the answer."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from greenroom.actors.fields import shallow
from greenroom.runtime.constraint import ForcedCalls, JsonAnswer
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import Tool

MAX_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ANY_OBJECT = {"type": "object"}


class FunctionBody(msgspec.Struct):
    """A function as OpenAI describes it; a schema is enforced whenever a call of it is forced."""

    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(msgspec.Struct):
    """A tool; only functions can be served."""

    type: str = ""
    function: FunctionBody | None = None


class NamedFunction(msgspec.Struct):
    """The function that must be called."""

    name: str = ""


class NamedTool(msgspec.Struct):
    """The tool that must be called."""

    type: str = ""
    function: NamedFunction | None = None


class SchemaBody(msgspec.Struct):
    """A JSON schema for the answer; it is enforced, ``strict`` or not."""

    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class FormatBody(msgspec.Struct):
    """The form of the answer."""

    type: str = ""
    json_schema: SchemaBody | None = None


def read_tools(tools: Sequence[ToolBody] | None) -> tuple[Tool, ...]:
    """The tools; raises ``InvalidRequest`` with the path of what cannot be served."""
    tools = tools or ()
    if len(tools) > MAX_TOOLS:
        raise _refused(f"tools holds at most {MAX_TOOLS} tools.", "tools", "out_of_range")
    read = [_tool(tool, f"tools[{n}]") for n, tool in enumerate(tools)]
    names = [tool.name for tool in read]
    for n, name in enumerate(names):
        if name in names[:n]:
            path = f"tools[{n}].function.name"
            raise _refused(f"{path}: there are two tools {name!r}.", path, "invalid_value")
    return tuple(read)


def _tool(tool: ToolBody, path: str) -> Tool:
    if tool.type != "function":
        raise _refused(
            f"{path}.type is {tool.type!r}; only functions can be called here.",
            f"{path}.type",
            "unsupported_value",
        )
    function = tool.function
    if function is None:
        raise _refused(f"{path}.function is missing.", f"{path}.function", "missing_value")
    if not _NAME.fullmatch(function.name):
        raise _refused(
            f"{path}.function.name takes 1 to 64 letters, digits, dashes and underscores.",
            f"{path}.function.name",
            "invalid_value",
        )
    parameters = shallow(f"{path}.function.parameters", function.parameters or {})
    return Tool(function.name, function.description, parameters)


def read_choice(
    choice: str | NamedTool | None, tools: Sequence[Tool], *, many: bool
) -> tuple[bool, ForcedCalls | None]:
    """Whether tools may be called, and whether they must be.

    Raises ``InvalidRequest`` (``tool_choice``) for a choice that the ``tools`` do not offer.
    """
    match choice:
        case None | "auto":
            return True, None
        case "none":
            return False, None
        case "required":
            if not tools:
                raise _refused("tool_choice needs tools.", "tool_choice", "invalid_value")
            return True, ForcedCalls(many=many)
        case NamedTool(type="function", function=NamedFunction(name)):
            if name not in {tool.name for tool in tools}:
                raise _refused(
                    f"tool_choice names {name[:64]!r}, which is not among the tools.",
                    "tool_choice",
                    "invalid_value",
                )
            return True, ForcedCalls(name)
        case _:
            raise _refused(
                'tool_choice must be "auto", "none", "required" or a function by its name.',
                "tool_choice",
                "unsupported_value",
            )


def read_format(form: FormatBody | None) -> JsonAnswer | None:
    """What the answer must be; None for free text. Raises ``InvalidRequest`` with the field."""
    if form is None:
        return None
    match form.type:
        case "text":
            return None
        case "json_object":
            return JsonAnswer(_ANY_OBJECT)
        case "json_schema":
            path = "response_format.json_schema.schema"
            if form.json_schema is None or form.json_schema.schema is None:
                raise _refused(f"{path} is missing.", path, "missing_value")
            return JsonAnswer(shallow(path, form.json_schema.schema), path)
        case _:
            raise _refused(
                f"response_format.type is {form.type[:64]!r}; text, json_object and json_schema"
                " are served here.",
                "response_format.type",
                "unsupported_value",
            )


def _refused(message: str, param: str, code: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code=code)
