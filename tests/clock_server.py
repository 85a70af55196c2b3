"""An MCP server for the tests: a clock that answers, refuses, paints, hangs and dies."""

import asyncio
import os

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("clock")


@server.tool()
async def time_in(city: str, hours: int = 0) -> str:
    """What time it is in a city."""
    if city == "Atlantis":
        raise ToolError("Atlantis has sunk")
    return f"{(12 + hours) % 24}:00 in {city}"


@server.tool()
async def dial() -> Image:
    """A picture of the clock."""
    return Image(data=b"\x89PNG", format="png")


@server.tool()
async def wait() -> str:
    """Wait for ever."""
    await asyncio.sleep(3600)
    return ""


@server.tool()
async def die() -> str:
    """Stop the clock."""
    os._exit(1)


if __name__ == "__main__":
    server.run("stdio")
