"""The custodian: sees to it that what is not needed leaves the disk."""

from typing import assert_never

from greenroom.actors.messages import (
    CustodianMessage,
    Drop,
    Erase,
    Freed,
    KeeperMessage,
    Remove,
    StoreMessage,
)
from greenroom.actors.whole import whole
from greenroom.runtime.actor import Actor
from greenroom.runtime.ref import Ref


class Custodian(Actor[CustodianMessage]):
    """Has the store forget segments and the keeper delete their files, in this order."""

    def __init__(self, store: Ref[StoreMessage], keeper: Ref[KeeperMessage]) -> None:
        self._store = store
        self._keeper = keeper

    async def handle(self, message: CustodianMessage) -> object:
        """Do it, and say what is gone."""
        match message:
            case Erase(ids):
                return await whole(self._erase(ids))
            case _:
                assert_never(message)

    async def _erase(self, ids: tuple[str, ...]) -> Freed:
        gone = await self._store.ask(Remove(ids))
        return Freed(len(gone), await self._keeper.ask(Drop(gone)))
