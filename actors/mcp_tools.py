"""Tools of MCP servers, for agents: needs the package ``mcp`` (``greenroom[mcp]``).

See https://modelcontextprotocol.io for the protocol; the client is the reference one.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import msgspec
from mcp import Client, MCPError, StdioServerParameters
from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as Offered

from greenroom.actors.apart import apart
from greenroom.actors.tools import Runnable, ToolRefusal
from greenroom.runtime.errors import Unavailable
from greenroom.runtime.records import Tool


class McpTool:
    """One tool of a connected server; see ``Runnable``."""

    def __init__(self, client: Client, offered: Offered) -> None:
        self._client = client
        self.spec = Tool(offered.name, offered.description, offered.input_schema)

    async def run(self, arguments: str) -> str:
        """Have the server run it. The server's own error, and its absence, are ToolRefusals."""
        try:
            given = msgspec.json.decode(arguments or "{}", type=dict[str, object])
        except msgspec.DecodeError as error:
            raise ToolRefusal(f"{self.spec.name} was not called: {error}") from error
        try:
            result = await self._client.call_tool(self.spec.name, given)
        except (MCPError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise ToolRefusal(f"{self.spec.name} failed: x") from error
        if result.is_error:
            raise ToolRefusal(f"{self.spec.name} failed: {_told(result)}")
        return _told(result)


@asynccontextmanager
async def mcp_tools(
    server: str | Sequence[str],
    *,
    only: Collection[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Runnable, ...]]:
    """Connect to an MCP server and give its tools, while the block runs.

    ``server`` is a command line, which is started and spoken to over its standard input and output
    (with ``env`` added to a minimal environment), or the URL of a server that is running. ``only``
    names the tools that are wanted. Raises Unavailable when the server cannot be reached::

        async with mcp_tools(["uvx", "mcp-server-time"]) as tools:
            reply = await alice.say("What time is it in Rome?", tools=tools)
    """
    where: str | StdioServerParameters
    if isinstance(server, str):
        where = server
    else:
        command, *arguments = server
        where = StdioServerParameters(command=command, args=arguments, env=dict(env or {}))
    # The client imports this when it first calls a tool, which would hold up the event loop.
    await asyncio.to_thread(importlib.import_module, "jsonschema")
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(apart(Client(where)))
            offered = await _offered(client)
        except Exception as error:  # an exception group of anything: not from our own code
            raise Unavailable(f"the MCP server cannot be reached: {_innermost(error)}") from error
        yield tuple(McpTool(client, o) for o in offered if only is None or o.name in only)


def _innermost(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def _offered(client: Client) -> list[Offered]:
    """All tools, page by page."""
    page = await client.list_tools()
    offered = list(page.tools)
    while page.next_cursor is not None:
        page = await client.list_tools(cursor=page.next_cursor)
        offered += page.tools
    return offered


def _told(result: CallToolResult) -> str:
    """What the model reads: the text; of anything else (images, ...) that it is there."""
    return "\n".join(
        part.text if isinstance(part, TextContent) else f"({part.type})" for part in result.content
    )
