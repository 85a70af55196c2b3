"""Settings: what each key means to the code, its type and its range.

The default values, units and reasons are in ``config/default.toml``. Read once at the top; each
part is handed only its section. Where values come from is ``greenroom.runtime.layers``'s matter.
"""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from greenroom.runtime.agent_records import Overflow

Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[int, Meta(ge=0)]
Duration = Annotated[float, Meta(ge=0)]
Pattern = Annotated[str, Meta(min_length=1)]
Key = Annotated[str, Meta(min_length=1)]
Positive = Annotated[float, Meta(gt=0)]


class _Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class ModelSettings(_Section, frozen=True):
    """Which model is served, and where it runs."""

    name: Annotated[str, Meta(min_length=1)]
    device: Literal["auto", "cpu", "gpu"]


class ServerSettings(_Section, frozen=True):
    """The HTTP door. An empty key means that none is asked for."""

    host: Annotated[str, Meta(min_length=1)]
    port: Annotated[int, Meta(ge=0, le=65535)]
    api_key: str
    api_keys: tuple[Key, ...]
    admin_key: str
    allowed_origins: tuple[str, ...]
    max_body_mb: Count
    max_sockets: Count
    max_turns: Count
    head_timeout_s: Positive
    body_timeout_s: Positive
    reader_timeout_s: Positive
    max_import_mb: Count
    keepalive_s: Duration
    resume_s: Duration
    drain_s: Duration

    @property
    def all_keys(self) -> tuple[str, ...]:
        """Every key that opens a namespace: ``api_key`` and the others."""
        return (self.api_key, *self.api_keys) if self.api_key else self.api_keys


class StageSettings(_Section, frozen=True):
    """What a step of the GPU actor may hold."""

    max_batch_size: Count
    max_rows: Count
    max_row_cost: Duration
    schedule: Literal["adaptive", "fixed"]
    chunk_tokens: Count
    max_decode_gap_ms: Duration
    scheduler: bool
    memory_budget_mb: Amount
    memory_wait_s: Positive


class MemorySettings(_Section, frozen=True):
    """How agents' attention state is stored and how much of it."""

    codec: Annotated[str, Meta(min_length=1)]
    cache_budget_mb: Count
    resident_budget_mb: Amount
    release_after_s: Positive
    durability: Literal["turn", "async"]
    disk_quota_mb: Amount
    keep_branches_s: Duration


class ActorSettings(_Section, frozen=True):
    """Bounds of the actor kernel."""

    mailbox_capacity: Count
    channel_capacity: Count
    passivate_after_s: Positive


class AgentSettings(_Section, frozen=True):
    """What holds of every agent that is not told otherwise."""

    overflow: Overflow
    overflow_keep: Annotated[float, Meta(gt=0, le=0.75)]


class TemplateSettings(_Section, frozen=True):
    """What becomes of messages before a chat template renders them."""

    volatile: tuple[Pattern, ...]


class LogSettings(_Section, frozen=True):
    """What is logged and in which form."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]


class Settings(_Section, frozen=True):
    """All settings, complete and checked. ``home`` is an absolute path."""

    home: str
    model: ModelSettings
    server: ServerSettings
    stage: StageSettings
    memory: MemorySettings
    actors: ActorSettings
    agents: AgentSettings
    template: TemplateSettings
    log: LogSettings

    @property
    def home_path(self) -> Path:
        """The folder below which everything is kept."""
        return Path(self.home)

    @property
    def store_path(self) -> Path:
        """The folder of the agents' memory."""
        return Path(self.home, "store")

    @property
    def models_path(self) -> Path:
        """The folder of fetched models."""
        return Path(self.home, "models")


# Values that no printout may show.
SECRETS = frozenset({"server.api_key", "server.api_keys", "server.admin_key"})
