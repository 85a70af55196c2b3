"""Tools: plain async functions that a model may ask to have called.

The schema of a function's arguments comes from its type hints, its description from its docstring.
What the model sends is checked against the hints before the function runs.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, get_type_hints, runtime_checkable

import msgspec

from greenroom.actors.shapes import schema_of
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.records import Tool, ToolCall

ToolFunction = Callable[..., Awaitable[object]]


class ToolRefusal(GreenroomError):
    """What the model is told in place of a result: its own mistake, or that the tool failed."""


@runtime_checkable
class Runnable(Protocol):
    """A tool that can be run: ``spec`` is what the model is told of it.

    ``run`` takes the arguments as JSON text and gives the result as text; it raises ToolRefusal
    with what the model is to be told instead.
    """

    @property
    def spec(self) -> Tool: ...

    async def run(self, arguments: str) -> str: ...


AnyTool = ToolFunction | Runnable | Tool
"""A tool as callers give it: an async function, one that is a ``Runnable`` already, or one that
the caller runs by other means, which therefore ends the turn."""


class FunctionTool:
    """An async function as a tool.

    Every parameter needs a type hint that msgspec can check (``int``, ``list[str]``, ``Literal``, a
    Struct or dataclass, ``Annotated[…, msgspec.Meta(description=…, ge=0)]``); one with a default
    may be left out by the model. The result is told as it is when it is text, else as JSON. Raises
    TypeError for a function that cannot be a tool.

    >>> import asyncio
    >>> async def double(n: int) -> int:
    ...     "Twice as much."
    ...     return 2 * n
    >>> tool = FunctionTool(double)
    >>> tool.spec.description, tool.spec.parameters["properties"]
    ('Twice as much.', {'n': {'type': 'integer'}})
    >>> asyncio.run(tool.run('{"n": 21}'))
    '42'
    """

    def __init__(self, function: ToolFunction) -> None:
        name = getattr(function, "__name__", type(function).__name__)
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{name} is not an async function, which a tool must be")
        self._function = function
        self._arguments = _arguments(name, function)
        description = inspect.getdoc(function)
        self.spec = Tool(name, description, schema_of(self._arguments))

    async def run(self, arguments: str) -> str:
        """Check the arguments, call, and tell the result; see ``Runnable``."""
        try:
            given = msgspec.json.decode(arguments or "{}", type=self._arguments)
        except msgspec.DecodeError as error:
            raise ToolRefusal(f"{self.spec.name} was not called: {error}") from error
        fields = {name: getattr(given, name) for name in given.__struct_fields__}
        result = await self._function(**fields)
        return result if isinstance(result, str) else self._told(result)

    def _told(self, result: object) -> str:
        try:
            return msgspec.json.encode(result).decode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolRefusal(
                f"{self.spec.name} ran, but its result cannot be told ({error})"
            ) from error


class Toolbox:
    """The tools of one turn, by name. Raises TypeError when two have the same name."""

    def __init__(self, tools: Sequence[AnyTool] = ()) -> None:
        self._tools: dict[str, Runnable] = {}
        specs: dict[str, Tool] = {}
        for given in tools:
            if isinstance(given, Tool):
                spec = given
            else:
                tool = given if isinstance(given, Runnable) else FunctionTool(given)
                spec = tool.spec
                self._tools[spec.name] = tool
            if spec.name in specs:
                raise TypeError(f"two tools are called {spec.name}")
            specs[spec.name] = spec
        self.specs = tuple(specs.values())
        self._elsewhere = frozenset(specs) - frozenset(self._tools)

    def can_run(self, calls: Sequence[ToolCall]) -> bool:
        """Whether there are calls, and none is for a tool that the caller runs by other means."""
        return bool(calls) and not any(call.name in self._elsewhere for call in calls)

    async def run(self, name: str, arguments: str) -> str:
        """Run one of them. Raises ToolRefusal, also for a name that none of them has, and whatever
        the tool raises."""
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(spec.name for spec in self.specs)
            raise ToolRefusal(f"there is no tool {name!r}; there are: {known}")
        return await tool.run(arguments)


def _arguments(name: str, function: ToolFunction) -> type[msgspec.Struct]:
    """A struct of the function's parameters."""
    hints = get_type_hints(function, include_extras=True)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}: a model cannot give {parameter}: arguments have names")
        if parameter.name not in hints:
            raise TypeError(f"{name}: the parameter {parameter.name} has no type hint")
        hint = hints[parameter.name]
        if parameter.default is parameter.empty:
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint, _default(parameter.default)))
    return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)


def _default(value: Any) -> Any:
    """A mutable default is copied for every call, as msgspec wants it."""
    if isinstance(value, list | dict | set):
        return msgspec.field(default_factory=lambda: type(value)(value))
    return value
