"""The tables of the configuration file, as they are once they were read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import msgspec

from vivavoce.config.audit import AuditSettings
from vivavoce.config.counters import CountersSettings
from vivavoce.config.identity import NO_GUID, Identity
from vivavoce.config.limits import CapacitySettings, LimitSettings, ProvisionedSku
from vivavoce.config.models import ModelsSettings
from vivavoce.config.prompts import PromptSettings
from vivavoce.config.values import ConfigError, Count, HiddenValues, Secret, Text

EngineKind: TypeAlias = Literal[
    "vad", "transcriber", "end_of_turn", "language_model", "synthesizer", "speech_model"
]
ENGINE_KINDS: Final[tuple[EngineKind, ...]] = get_args(EngineKind)

Tokenizer: TypeAlias = Literal["estimate", "o200k"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
PROVISIONED: Final[tuple[str, ...]] = get_args(ProvisionedSku)
"""What is bought as throughput."""
DeploymentSku: TypeAlias = Literal[
    "Standard",
    "GlobalStandard",
    "DataZoneStandard",
    "ProvisionedManaged",
    "GlobalProvisionedManaged",
    "DataZoneProvisionedManaged",
]

MAX_WAITING: Final = 256
API_KEY_VARIABLE: Final = "VIVAVOCE_API_KEY"

SPEECH_MODEL_STANDS_FOR: Final[tuple[EngineKind, ...]] = ("language_model", "synthesizer")

DEFAULT_INSTRUCTIONS: Final = (
    "You are a friendly assistant who talks with people. Keep your answers short and easy to follow by ear, "
    "use the language that the person uses, and admit it when you do not know something."
)


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[server]``: the listening socket and the limits of the process."""

    host: Text = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8089
    """0 takes a free port."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    """Processes that share the port."""
    tls_cert: Text | None = None
    """PEM file of the certificate and those that lead to its root; None speaks plain HTTP and WebSocket. Once it is
    loaded it is a path as the process finds it; so is ``tls_key``."""
    tls_key: Text | None = None
    """PEM file of its key; None when the key is in ``tls_cert``."""
    max_sessions: Count = 1000
    max_custom_headers: Annotated[int, msgspec.Meta(ge=0)] = 10
    """Custom request headers that an upgrade on an Azure path may carry before it is answered 431."""
    shutdown_grace_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 5.0
    """Seconds that sessions get to end after SIGTERM."""
    ping_interval_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 20.0
    """Seconds between pings, and the wait for a pong before the connection is dropped."""
    request_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0
    """Seconds in which a connection must have sent a request, and that it may idle after one."""
    compression: bool = False
    """Accept permessage-deflate from clients that offer it."""
    session_seconds: Annotated[int, msgspec.Meta(ge=1, le=86400)] | None = None
    """Seconds after which a session expires; None: as its dialect has it (``profiles.session_seconds``)."""
    metrics: bool = True
    """Answer ``GET /metrics``, for Prometheus."""
    tokenizer: Tokenizer = "estimate"
    """What counts the tokens of text."""
    log_level: LogLevel = "info"
    data: Text | None = None
    """Folder of what the server keeps. Once it is loaded it is a path as the process finds it; None where neither
    the file nor the environment tells one."""


class ResourceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[resource]``: the first account; the others take over where it is, unless they say otherwise."""

    name: Text = "vivavoce"
    subscription: Text = NO_GUID
    resource_group: Text = "vivavoce"
    location: Text = "eastus2"
    """The region whose models and quotas it has."""
    tenant: Text = NO_GUID
    subdomain: str = ""
    """First label of the host names that mean it; empty stands for its name."""
    keys: tuple[Secret, ...] = ()
    """Any of them opens every deployment of the account. Empty: nobody may connect until the caller adds one."""
    subprotocol_keys: bool = True
    """Take keys from the subprotocol ``openai-insecure-api-key.KEY``, as browsers send them."""


class AccountSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[account]]``: one more account. Options as in ``[resource]``."""

    name: Text
    subscription: Text
    resource_group: Text
    location: Text
    tenant: Text
    subdomain: str = ""
    keys: tuple[Secret, ...] = ()


class ManagementSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[management]``: the API by which accounts, deployments and roles are changed while the server runs."""

    enabled: bool = False
    endpoint: str = ""
    """Where clients of an account connect, as its ``endpoint`` tells them; ``{account}`` stands for the first label
    of its host names. Empty: where the request for it came to."""


class SubscriptionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[subscription]]``: where accounts may be made, beside the subscriptions and groups that have accounts."""

    id: str
    tenant: str
    """Whose tokens may manage it."""
    name: str = ""
    """For people; empty is the id."""
    resource_groups: tuple[str, ...] = ()


class WorkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``[[deployment]]`` and ``[recipe.NAME]`` share: how sessions are served, and by which engines."""

    profile: str = ""
    """One of ``wire.dialects.profiles.NAMES``, for sessions of its dialect. Empty: it follows the connection, then
    ``version``."""
    conversation_created: bool = True
    """Send ``conversation.created`` after ``session.created``."""
    strict: bool = True
    """Refuse what the service refuses; false takes some spellings that only its documents print."""
    instructions: str = DEFAULT_INSTRUCTIONS
    heard_text: bool = True
    """Let the model keep the words of a truncated message that were heard; clients see none either way."""
    connections_per_minute: Count | None = None
    """New sessions of all clients together; None for as many as come."""
    max_sessions: Count | None = None
    """Sessions at once, in all processes that share their counters; None for as many as there may be."""
    context_window: Count | None = None
    """Tokens that the model reads and writes in one response; None is that of the model that it claims to be."""
    max_output: Count | None = None
    """Tokens of the window that it writes at most; None is that of the model, or half of the window."""
    speculate: bool = False
    """Begin to answer a turn that is likely over, and hold it back until it is."""
    vad: Text = "silero"
    transcriber: Text = "pocketsphinx"
    end_of_turn: Text = "turn_hints"
    language_model: Text = "scripted"
    synthesizer: Text = "espeak"
    speech_model: Text | None = None
    """Where it is named, it stands for ``language_model`` and ``synthesizer``, which are not used."""

    @property
    def engines(self) -> Mapping[EngineKind, str]:
        """Names of the engines that it uses."""
        unused = ("speech_model",) if self.speech_model is None else SPEECH_MODEL_STANDS_FOR
        return {kind: getattr(self, kind) for kind in ENGINE_KINDS if kind not in unused}


class DeploymentSettings(WorkSettings, frozen=True, kw_only=True):
    """``[[deployment]]``: a name that clients ask for, what it claims to be, and what does its work."""

    name: str
    account: str = ""
    """Name of its account; empty is the first."""
    model: Text = "gpt-4o-realtime-preview"
    version: str = "2024-12-17"
    """May be empty; then the model is reported without a version."""
    sku: DeploymentSku = "GlobalStandard"
    capacity: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 10_000
    """Thousands of tokens per minute; where the sku is provisioned, units of throughput (PTU)."""
    spillover: str | None = None
    """The deployment of the account that takes what a provisioned one has no room for."""
    requests_per_minute: Count | None = None
    """None is 6 for each 1000 tokens per minute."""
    request_window_s: Annotated[float, msgspec.Meta(ge=1, le=60)] | None = None
    """Seconds in which no more requests may come at once than fall to them. None is 10, or a minute where
    ``requests_per_minute`` is given."""


class RecipeSettings(WorkSettings, frozen=True, kw_only=True):
    """``[recipe.NAME]``: what does the work of deployments that are made while the server runs."""

    models: tuple[Text, ...]
    """Patterns (``*``, ``?``, ``[...]``) of which one must match the name of the model, or name-version."""

    def serves(self, name: str, version: str) -> bool:
        """Whether deployments of this model may have it."""
        names = (name, f"{name}-{version}") if version else (name,)
        return any(fnmatchcase(one, pattern) for one in names for pattern in self.models)


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[store]``: where changes of accounts and deployments are kept."""

    url: Secret | None = None
    """Of the database, as SQLAlchemy has it; None is SQLite in the data folder. It may hold a password."""
    secret: Secret | None = None
    """What the keys of accounts are made with; None takes that of the data folder."""
    usage_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] = 400
    """Days that usage is kept for."""


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[engine.NAME]``: a plug-in with options of its own, whose values nothing shows: they may be keys."""

    kind: EngineKind
    type: str
    """Name of the plug-in."""
    options: Mapping[str, object]
    max_concurrent: int | None = None
    """Pieces of work that it gets at a time; None for as many as there are."""
    max_waiting: int = MAX_WAITING
    """Pieces of work that may wait for their turn."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "options", HiddenValues(self.options))


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a process."""

    server: ServerSettings = ServerSettings()
    resource: ResourceSettings = ResourceSettings()
    more_accounts: tuple[AccountSettings, ...] = ()
    """Those after the one of ``[resource]``."""
    identity: Identity = Identity()
    """Who may connect besides the holders of keys."""
    audit: AuditSettings = AuditSettings()
    models: ModelsSettings = ModelsSettings()
    own_models: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """What the file ``models.catalogue`` holds."""
    limits: LimitSettings = LimitSettings()
    capacities: tuple[CapacitySettings, ...] = ()
    management: ManagementSettings = ManagementSettings()
    subscriptions: tuple[SubscriptionSettings, ...] = ()
    counters: CountersSettings = CountersSettings()
    deployments: tuple[DeploymentSettings, ...] = ()
    recipes: Mapping[str, RecipeSettings] = msgspec.field(default_factory=dict)
    """By name, in the order of the file, which is the order in which they are asked."""
    prompts: Mapping[str, PromptSettings] = msgspec.field(default_factory=dict)
    """By id."""
    store: StoreSettings | None = None
    """None: nothing is there but what is declared."""
    engines: Mapping[str, EngineSettings] = msgspec.field(default_factory=dict)
    base: Path = Path()
    """Folder that relative paths in engine options start from: the one of the file."""

    @property
    def accounts(self) -> tuple[AccountSettings, ...]:
        """All that are declared, the one of ``[resource]`` first."""
        names = AccountSettings.__struct_fields__
        first = AccountSettings(**{name: getattr(self.resource, name) for name in names})
        return (first, *self.more_accounts)

    @property
    def data_folder(self) -> Path:
        """Where the server keeps what it must remember; it may not exist yet. Raises :class:`ConfigError`."""
        if self.server.data is None:
            raise ConfigError("server.data", "neither XDG_DATA_HOME nor HOME is set: name a folder")
        return Path(self.server.data)

    def with_keys(self, *keys: Secret) -> Config:
        """The same with other keys of the first account."""
        return msgspec.structs.replace(self, resource=msgspec.structs.replace(self.resource, keys=keys))

    def for_one_worker(self, workers: int) -> Config:
        """The same for one of ``workers``: its share of the sessions, rounded up."""
        share = -(-self.server.max_sessions // workers)
        return msgspec.structs.replace(self, server=msgspec.structs.replace(self.server, max_sessions=share))

    def unused_engines(self) -> tuple[str, ...]:
        """Names of ``[engine.NAME]`` tables that neither a deployment nor a recipe refers to."""
        used = {pair for one in (*self.deployments, *self.recipes.values()) for pair in one.engines.items()}
        return tuple(name for name, engine in self.engines.items() if (engine.kind, name) not in used)


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says; it wins over everything else. None or empty: not said."""

    host: str | None = None
    port: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    api_keys: tuple[Secret, ...] = ()
    log_level: str | None = None
    workers: int | None = None
