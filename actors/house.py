"""What the doors ask of the composition root: the house they stand in front of."""

from typing import TYPE_CHECKING, Protocol

from greenroom.actors.house_records import ModelCard, Repertoire
from greenroom.actors.meter import Meter
from greenroom.actors.reach import Reach
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.settings import Settings

if TYPE_CHECKING:
    from greenroom.actors.theatre import Scenes


class House(Reach, Protocol):
    """One loaded model with its agents; every door (HTTP, WebSocket) talks to this and no further.

    ``overhear`` has an agent get ready for a message of which this much has been said so far, or
    for none any more; it only saves time, and what is said must be told in full in the end.
    ``meter`` measures turns. ``resolve_model`` raises ``NotFound`` (param "model") for a name that
    is not served. ``ready`` is false until the model is loaded and once draining has begun.

    For operators: ``swap`` serves another model and ``offload`` none; turns may end first, within
    ``server.drain_s``, and until a model is ``loaded`` whoever comes gets ``Unavailable``. A model
    that cannot be served leaves the one before it: ``NotFound``, ``ModelUnavailable``. ``Conflict``
    while another change is under way. ``let_go`` drops what is in memory only to be quick.
    """

    @property
    def settings(self) -> Settings: ...

    @property
    def meter(self) -> Meter: ...

    @property
    def scenes(self) -> "Scenes": ...

    async def overhear(self, namespace: str, agent: str, message: ChatMessage | None) -> None: ...

    @property
    def loaded(self) -> bool: ...

    async def repertoire(self) -> tuple[Repertoire, ...]: ...

    async def swap(self, model: str) -> ModelCard: ...

    async def offload(self) -> None: ...

    async def let_go(self) -> None: ...

    def drain(self, *, draining: bool = True) -> None: ...

    def resolve_model(self, name: str | None) -> str: ...

    def ready(self) -> bool: ...
