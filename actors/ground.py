"""What stands whatever is played."""

import msgspec

from greenroom.actors.meter import Meter
from greenroom.actors.threads import Threads
from greenroom.runtime.index import Index
from greenroom.runtime.vault import Vault
from greenroom.runtime.worker import Worker


class Ground(msgspec.Struct, frozen=True):
    """The memory on disk, threads for it, the meter, and the threads that had a model so far."""

    vault: Vault
    index: Index
    threads: Threads
    meter: Meter
    stages: list[Worker]

    async def clear_stages(self) -> None:
        """End the threads that have a model still: of actors that were killed."""
        while self.stages:
            self.stages[0].stop()
            await self.stages[0].join()
            del self.stages[0]
