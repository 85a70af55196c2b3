"""The scenes of a server: performed over HTTP, watched over a WebSocket."""

from contextlib import aclosing
from urllib.parse import quote

import aiohttp
import msgspec

from greenroom.actors.remote_calls import answered, call, lost, streamed
from greenroom.actors.remote_errors import ServerLost, error_event
from greenroom.actors.remote_feeds import RemoteFeeds
from greenroom.actors.scene_messages import SceneEvent, SceneInfo, Tell
from greenroom.runtime.ballot import Tally
from greenroom.runtime.channel import Channel
from greenroom.runtime.scenario import Scenario, Vote
from greenroom.runtime.transcript import Entry, Line

HEARTBEAT_S = 20.0
DONE = b"[DONE]"


class _Infos(msgspec.Struct):
    data: list[SceneInfo]


class _Entries(msgspec.Struct):
    data: tuple[Entry, ...]


class RemoteScenes:
    """The scenes of one key of one server; see ``SceneReach``.

    A scene that is performed from here stops when its channel is cancelled or this is closed. All
    methods raise ServerLost besides.
    """

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client
        self._following = RemoteFeeds()

    async def create(self, namespace: str, scenario: Scenario) -> SceneInfo:
        """Find or make a scene."""
        return await call(self._client, "POST", "/v1/scenes", SceneInfo, scenario)

    async def list(self, namespace: str) -> list[SceneInfo]:
        """Every scene of the key."""
        return (await call(self._client, "GET", "/v1/scenes", _Infos)).data

    async def info(self, namespace: str, name: str) -> SceneInfo:
        """Where a scene stands."""
        return await call(self._client, "GET", _of(name), SceneInfo)

    async def entries(self, namespace: str, name: str) -> tuple[Entry, ...]:
        """All that has happened in a scene."""
        return (await call(self._client, "GET", _of(name, "entries"), _Entries)).data

    async def delete(self, namespace: str, name: str) -> None:
        """Stop a scene and forget it."""
        async with answered(self._client, "DELETE", _of(name)):
            pass

    async def tell(self, namespace: str, name: str, told: Tell) -> Line:
        """Say something as narrator or guest."""
        body = {"text": told.text, "speaker": told.speaker, "to": told.to}
        return await call(self._client, "POST", _of(name, "lines"), Line, body)

    async def tally(self, namespace: str, name: str, vote: Vote) -> Tally:
        """Hold a vote and count it."""
        return await call(self._client, "POST", _of(name, "votes"), Tally, vote)

    async def perform(
        self, namespace: str, name: str, turns: int | None = None, speaker: str | None = None
    ) -> Channel[SceneEvent]:
        """Go on with a scene. What the server refuses comes out of the channel."""
        body = msgspec.json.encode({"turns": turns, "speaker": speaker, "stream": True})

        async def follow(channel: Channel[SceneEvent]) -> None:
            async with answered(self._client, "POST", _of(name, "run"), data=body) as response:
                await _read(response, channel)

        return self._following.open(follow)

    async def watch(self, namespace: str, name: str) -> Channel[SceneEvent]:
        """See what happens from now on. Raises NotFound."""
        try:
            socket = await self._client.ws_connect(
                _of(name, "stream"), heartbeat=HEARTBEAT_S, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as error:
            await self.info(namespace, name)  # says why it was refused, which a handshake cannot
            raise ServerLost(f"the server refused a socket ({error.status})") from error
        except (aiohttp.ClientError, OSError) as error:
            raise lost(error) from error

        async def follow(channel: Channel[SceneEvent]) -> None:
            async with socket:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        await _pass_on(message.data.encode(), channel)
            if socket.close_code in (None, aiohttp.WSCloseCode.ABNORMAL_CLOSURE):
                raise ServerLost("the server has gone while its scene was watched")

        return self._following.open(follow)

    async def close(self) -> None:
        """Give up all that is performed or watched from here."""
        await self._following.close()


async def _read(response: aiohttp.ClientResponse, channel: Channel[SceneEvent]) -> None:
    async with aclosing(streamed(response)) as events:
        async for data in events:
            if data == DONE:
                return
            await _pass_on(data, channel)
    raise ServerLost("the server has gone in the middle of a scene")


async def _pass_on(data: bytes, channel: Channel[SceneEvent]) -> None:
    """Send on what an event tells. Raises the error that it may tell."""
    if (error := error_event(data)) is not None:
        raise error
    try:
        event: SceneEvent = msgspec.json.decode(data, type=SceneEvent)
    except msgspec.ValidationError:  # a kind of event that came after this client
        return
    await channel.send(event)


def _of(scene: str, what: str = "") -> str:
    path = f"/v1/scenes/{quote(scene, safe='')}"
    return f"{path}/{what}" if what else path
