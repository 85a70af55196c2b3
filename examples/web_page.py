"""A web page that talks to an agent: one HTML file, no build, tokens as they come.

This program opens a room, serves its doors and, on a port of its own, the page beside it. A page
from this machine may talk to the room; one opened as a file, or from elsewhere, is turned away.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from aiohttp import web

import greenroom
from greenroom.runtime.layers import load_settings

PAGE = Path(__file__).with_name("web_page.html")


async def page(_request: web.Request) -> web.FileResponse:
    """The page itself."""
    return web.FileResponse(PAGE)


async def main(home: str) -> None:
    app = web.Application()
    app.add_routes([web.get("/", page)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        async with greenroom.open(home=home) as room, room.serve(port=0) as url:
            await site.start()
            port = runner.addresses[0][1]
            print(f"open http://127.0.0.1:{port}/#{url.replace('http', 'ws', 1)}", flush=True)
            print("Ctrl-C ends it", flush=True)
            await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:
        # A home of its own, with the models that are there already.
        Path(folder, "models").symlink_to(load_settings().settings.models_path)
        try:
            asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else folder))
        except KeyboardInterrupt:
            print("closed")
