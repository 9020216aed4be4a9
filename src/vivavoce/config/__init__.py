"""Settings: one TOML file, the environment and the command line, read once and frozen.

Laws
----
1. This room alone reads configuration files and environment variables.
2. :func:`load_config` depends on its arguments alone (and on the file that ``path`` names).
3. Nothing is accepted and ignored: an unknown table or option is an error that names its path.
4. Keys are :class:`Secret` from the moment they are read, and options of engines are left out of every ``repr``.
5. What can only be known from the installed engines (does an engine exist, are its options right) is not
   decided here; ``gateway.deployments`` does it and raises the same :class:`ConfigError`.

``docs/reference/configuration.md`` describes the file for its writer.
"""

from vivavoce.config.audit import AuditSettings
from vivavoce.config.counters import CountersSettings
from vivavoce.config.data import kept_secret, open_data_folder, private_file
from vivavoce.config.identity import NO_GUID
from vivavoce.config.limits import CapacitySettings, LimitSettings
from vivavoce.config.loading import environment_key, load_config
from vivavoce.config.models import LifecyclePolicy, ModelsSettings
from vivavoce.config.prompts import PromptSettings
from vivavoce.config.tables import (
    API_KEY_VARIABLE,
    DEFAULT_INSTRUCTIONS,
    ENGINE_KINDS,
    MAX_WAITING,
    PROVISIONED,
    AccountSettings,
    Config,
    DeploymentSettings,
    DeploymentSku,
    EngineKind,
    EngineSettings,
    LogLevel,
    ManagementSettings,
    Overrides,
    RecipeSettings,
    ResourceSettings,
    ServerSettings,
    StoreSettings,
    SubscriptionSettings,
    Tokenizer,
    WorkSettings,
)
from vivavoce.config.values import ConfigError, Secret

__all__ = [
    "API_KEY_VARIABLE",
    "DEFAULT_INSTRUCTIONS",
    "ENGINE_KINDS",
    "MAX_WAITING",
    "NO_GUID",
    "PROVISIONED",
    "AccountSettings",
    "AuditSettings",
    "CapacitySettings",
    "Config",
    "ConfigError",
    "CountersSettings",
    "DeploymentSettings",
    "DeploymentSku",
    "EngineKind",
    "EngineSettings",
    "LifecyclePolicy",
    "LimitSettings",
    "LogLevel",
    "ManagementSettings",
    "ModelsSettings",
    "Overrides",
    "PromptSettings",
    "RecipeSettings",
    "ResourceSettings",
    "Secret",
    "ServerSettings",
    "StoreSettings",
    "SubscriptionSettings",
    "Tokenizer",
    "WorkSettings",
    "environment_key",
    "kept_secret",
    "load_config",
    "open_data_folder",
    "private_file",
]
