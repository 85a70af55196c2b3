"""Asking the keeper for bytes, which it reads beside its mailbox."""

from collections.abc import Sequence

from greenroom.actors.keeper_messages import Fetch, Fetched, KeeperMessage
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import ActorStopped
from greenroom.runtime.ref import Ref


async def fetch(keeper: Ref[KeeperMessage], ids: Sequence[str]) -> Fetched:
    """The payloads of segments, hot or from disk. Raises MailboxFull or ActorStopped."""
    async with Channel[Fetched](1) as reply:
        keeper.tell(Fetch(tuple(ids), reply))
        async for fetched in reply:
            return fetched
    raise ActorStopped(keeper.path)
