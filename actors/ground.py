"""What stands whatever is played."""

import msgspec

from greenroom.actors.meter import Meter
from greenroom.actors.threads import Threads
from greenroom.runtime.index import Index
from greenroom.runtime.vault import Vault


class Ground(msgspec.Struct, frozen=True):
    """The memory on disk, threads for it, and the meter."""

    vault: Vault
    index: Index
    threads: Threads
    meter: Meter
