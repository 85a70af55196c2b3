"""What a house tells of itself."""

import msgspec

from greenroom.actors.keeper_messages import Held
from greenroom.actors.store_messages import Stored
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.inspect import SystemInfo


class ModelCard(msgspec.Struct, frozen=True):
    """The served model as callers see it.

    ``name`` is its catalog name, ``hf_id`` its Hugging Face id where it has one, ``context_window``
    in tokens, ``created`` in seconds since the epoch. ``fingerprint`` is OpenAI's: what with equal
    seeds gives equal answers.
    """

    name: str
    hf_id: str | None
    context_window: int
    created: int
    fingerprint: str = "fp_unknown"


class Repertoire(msgspec.Struct, frozen=True):
    """A model that could be served: its catalog name, and whether it is ``on_disk``."""

    name: str
    title: str
    hf_id: str | None
    on_disk: bool


class Status(msgspec.Struct, frozen=True):
    """What goes on inside: every actor, what the stage has done so far, what is kept where, and
    what was found out about the model's chat template when it was loaded, in words."""

    stage: StageCounters
    actors: SystemInfo
    hot: Held
    stored: Stored
    template: tuple[str, ...] = ()
