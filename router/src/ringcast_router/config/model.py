"""The loaded configuration, as frozen data. `resolved()` gives it in the shape and with the key names of the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ringcast_router.config.tree import Node

NOTHING: Mapping[str, Any] = MappingProxyType({})


def nothing() -> Mapping[str, Any]:
    """Return the empty mapping: a default of a field, which before Python 3.12 may not be `NOTHING` itself."""
    return NOTHING


@dataclass(frozen=True, slots=True)
class Filters:
    """What is changed in a JSON body before it is passed on."""

    strip_params: str = ""  # as written: names with commas between
    set_params: Mapping[str, Any] = field(default_factory=nothing)
    set_params_by_id: Mapping[str, Mapping[str, Any]] = field(default_factory=nothing)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs of the connection to a model server, in seconds; 0 means none."""

    connect: int = 30
    keepalive: int = 30
    response_header: int = 0
    tls_handshake: int = 10
    expect_continue: int = 1
    idle_conn: int = 90


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model takes and gives, as told to clients."""

    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    tools: bool = False
    reranker: bool = False
    context: int = 0


@dataclass(frozen=True, slots=True)
class Liveness:
    """How a ready server is watched: every `every` seconds; `failures` failures in a row restart it. `every` 0: not."""

    every: float = 10.0
    failures: int = 3


@dataclass(frozen=True, slots=True)
class Model:
    """One model: what starts its server, where that listens, how requests for it are treated."""

    id: str
    cmd: str = ""  # macros and the port put in; comment lines removed; not yet split
    cmd_stop: str = ""  # may contain ${PID}
    proxy: str = ""  # the base URL of the server
    check_endpoint: str = "/health"  # "none": ready at once
    ttl: int = 0  # seconds; 0 means never
    unload_timeout: int = 10  # seconds from SIGTERM to SIGKILL
    health_check_timeout: int = 120  # seconds that a start may take
    aliases: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # NAME=value
    name: str = ""
    description: str = ""
    use_model_name: str = ""
    unlisted: bool = False
    concurrency_limit: int = 0  # 0 means 10
    send_loading_state: bool = False
    macros: tuple[tuple[str, Any], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=nothing)
    filters: Filters = Filters()
    timeouts: Timeouts = Timeouts()
    ignore_websockets: bool = False
    capabilities: Capabilities = Capabilities()
    # below `ringcast:`, not in the original's file
    priority: int = 0  # where nothing below `ringcast:` says one, that of `routing.scheduler.settings.fifo`
    liveness: Liveness = Liveness()
    pinned: bool = False
    resources: Mapping[str, int] = field(default_factory=nothing)
    port: int = 0  # what ${PORT} stood for; 0 where `cmd` does not use it

    @property
    def limit(self) -> int:
        """How many requests the model takes at once."""
        return self.concurrency_limit if self.concurrency_limit > 0 else 10


@dataclass(frozen=True, slots=True)
class Group:
    """Models that exclude one another, or others; the meaning is in `planning/group.py`."""

    swap: bool = True
    exclusive: bool = True
    persistent: bool = False
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Matrix:
    """Which models may run together, in the set language of `planning/sets.py`. Vars are resolved in `evict_costs`."""

    vars: Mapping[str, str] = field(default_factory=nothing)
    evict_costs: Mapping[str, int] = field(default_factory=nothing)
    sets: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Fair:
    """The settings of the scheduler `fair`, in seconds where nothing else is said. None means "auto" (measured)."""

    max_wait: float = 30.0
    min_residence: float | None = None
    linger: float | None = None
    max_batch: int = 64


@dataclass(frozen=True, slots=True)
class Queue:
    """How many requests may wait, and how long."""

    limit: int = 100  # per model
    total: int = 1000
    timeout: float = 600.0  # seconds; 0 means none


@dataclass(frozen=True, slots=True)
class Key:
    """An API key and what it may do. `models` None means all."""

    key: str
    priority: int = 0
    max_priority: int = 0
    models: frozenset[str] | None = None
    admin: bool = True


@dataclass(frozen=True, slots=True)
class Config:
    """All of a configuration, resolved: every macro replaced, every default filled in."""

    models: Mapping[str, Model] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)  # with "(default)"
    matrix: Matrix | None = None
    router: str = "group"  # "group", "matrix" or a plug-in
    scheduler: str = "fair"  # "fifo", "fair" or a plug-in
    fifo_priority: Mapping[str, int] = field(default_factory=nothing)
    fair: Fair = Fair()
    queue: Queue = Queue()
    keys: tuple[Key, ...] = ()  # those of `apiKeys` first
    preload: tuple[str, ...] = ()
    log_level: str = "info"
    log_time_format: str = ""
    log_to_stdout: str = "proxy"
    include_aliases_in_list: bool = False
    send_loading_state: bool = False
    health_check_timeout: int = 120
    unload_timeout: int = 10
    ignore_paths: tuple[str, ...] = ()  # regular expressions for /upstream; the default is filled in
    settings: Mapping[str, Any] = field(
        default_factory=nothing
    )  # the whole result as the original has it: see resolved()
    warnings: tuple[str, ...] = ()  # unknown keys, keys that are not served yet
    source: Node | None = field(default=None, compare=False, repr=False)  # what it was built from: see reload.keep

    def resolved(self) -> dict[str, Any]:
        """Return the loaded configuration in the original's shape and key names, with every default filled in."""
        return dict(self.settings)

    def model_id(self, name: str) -> str | None:
        """Return the id of the model that `name`, an id or an alias, stands for; None where there is none."""
        if name in self.models:
            return name
        return next((model.id for model in self.models.values() if name in model.aliases), None)
