"""Settings: one TOML file, the environment and the command line, read once and frozen.

Laws
----
1. This is the only module that reads configuration files and environment variables.
2. :func:`load_config` depends on its arguments alone (and on the file that ``path`` names).
3. Nothing is accepted and ignored: an unknown table or option is an error that names its path.
4. Keys are :class:`Secret` from the moment they are read, and options of engines are left out of every ``repr``.
5. What can only be known from the installed engines (does an engine exist, are its options right) is not
   decided here; ``gateway.deployments`` does it and raises the same :class:`ConfigError`.

``docs/reference/configuration.md`` describes the file for its writer.
"""

from __future__ import annotations

import difflib
import hmac
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, get_args, get_type_hints

import msgspec

from vivavoce.wire.dialects.profiles import NAMES

EngineKind: TypeAlias = Literal[
    "vad", "transcriber", "end_of_turn", "language_model", "synthesizer", "speech_model"
]
ENGINE_KINDS: Final[tuple[EngineKind, ...]] = get_args(EngineKind)

Tokenizer: TypeAlias = Literal["estimate", "o200k"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

MAX_WAITING: Final = 256
API_KEY_VARIABLE: Final = "VIVAVOCE_API_KEY"

_SPEECH_MODEL_STANDS_FOR: Final[tuple[EngineKind, ...]] = ("language_model", "synthesizer")

_FROM_ENVIRONMENT: Final = "_env"
"""Ends an engine's option whose value is in the environment variable that it names."""

_KEY: Final = re.compile(r"[\x21-\x7e]+")
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_ENGINE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DEPLOYMENT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

DEFAULT_INSTRUCTIONS: Final = (
    "You are a friendly assistant who talks with people. Keep your answers short and easy to follow by ear, "
    "use the language that the person uses, and admit it when you do not know something."
)


class ConfigError(Exception):
    """The configuration is wrong: ``path`` names the place (``deployment[2].synthesizer``), ``problem`` the fault.

    ``path`` is a path within the file, ``FILE:LINE`` for broken TOML, or the name of an option or variable.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class Secret:
    """A text that must not be shown. Only :meth:`reveal` gives it away; ``repr`` and ``str`` do not."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)


# ------------------------------------------------------------------------------------------- the file's tables

_Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[server]``: the listening socket and the limits of the process."""

    host: _Text = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8089
    """0 takes a free port."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    """Processes that share the port."""
    tls_cert: _Text | None = None
    """PEM file of the certificate and those that lead to its root; None speaks plain HTTP and WebSocket. Once it is
    loaded it is a path as the process finds it; so is ``tls_key``."""
    tls_key: _Text | None = None
    """PEM file of its key; None when the key is in ``tls_cert``."""
    max_sessions: _Count = 1000
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
    session_seconds: Annotated[int, msgspec.Meta(ge=1, le=86400)] = 1800
    """Seconds after which a session expires."""
    metrics: bool = True
    """Answer ``GET /metrics``, for Prometheus."""
    tokenizer: Tokenizer = "estimate"
    """What counts the tokens of text."""
    log_level: LogLevel = "info"


class ResourceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[resource]``: what all deployments have in common."""

    name: _Text = "vivavoce"
    keys: tuple[Secret, ...] = ()
    """Any of them opens every deployment. Empty: nobody may connect until the caller adds one."""
    subprotocol_keys: bool = True
    """Take keys from the subprotocol ``openai-insecure-api-key.KEY``, as browsers send them."""


class DeploymentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[deployment]]``: a name that clients ask for, what it claims to be, and the engines behind it."""

    name: str
    model: _Text = "gpt-4o-realtime-preview"
    version: str = "2024-12-17"
    """May be empty; then the model is reported without a version."""
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
    capacity: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 10_000
    """Thousands of tokens per minute."""
    requests_per_minute: _Count | None = None
    """None is 6 for each 1000 tokens per minute."""
    speculate: bool = False
    """Begin to answer a turn that is likely over, and hold it back until it is."""
    vad: _Text = "silero"
    transcriber: _Text = "pocketsphinx"
    end_of_turn: _Text = "turn_hints"
    language_model: _Text = "scripted"
    synthesizer: _Text = "espeak"
    speech_model: _Text | None = None
    """Where it is named, it stands for ``language_model`` and ``synthesizer``, which are not used."""

    @property
    def engines(self) -> Mapping[EngineKind, str]:
        """Names of the engines that it uses."""
        unused = ("speech_model",) if self.speech_model is None else _SPEECH_MODEL_STANDS_FOR
        return {kind: getattr(self, kind) for kind in ENGINE_KINDS if kind not in unused}


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[engine.NAME]``: a plug-in with options of its own. ``repr`` leaves the options out: they may hold keys."""

    kind: EngineKind
    type: str
    """Name of the plug-in."""
    options: Mapping[str, object]
    max_concurrent: int | None = None
    """Pieces of work that it gets at a time; None for as many as there are."""
    max_waiting: int = MAX_WAITING
    """Pieces of work that may wait for their turn."""

    def __repr__(self) -> str:
        return f"EngineSettings(kind={self.kind!r}, type={self.type!r}, options={{{', '.join(self.options)}}})"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a process."""

    server: ServerSettings = ServerSettings()
    resource: ResourceSettings = ResourceSettings()
    deployments: tuple[DeploymentSettings, ...] = ()
    engines: Mapping[str, EngineSettings] = msgspec.field(default_factory=dict)
    base: Path = Path()
    """Folder that relative paths in engine options start from: the one of the file."""

    def with_keys(self, *keys: Secret) -> Config:
        """The same with other keys."""
        return msgspec.structs.replace(self, resource=msgspec.structs.replace(self.resource, keys=keys))

    def for_one_worker(self, workers: int) -> Config:
        """The same for one of ``workers``: its share of the sessions, rounded up."""
        share = -(-self.server.max_sessions // workers)
        return msgspec.structs.replace(self, server=msgspec.structs.replace(self.server, max_sessions=share))

    def unused_engines(self) -> tuple[str, ...]:
        """Names of ``[engine.NAME]`` tables that no deployment refers to."""
        used = {pair for deployment in self.deployments for pair in deployment.engines.items()}
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


# ----------------------------------------------------------------------------------------------------- loading


def load_config(path: Path | None, *, environ: Mapping[str, str], overrides: Overrides | None = None) -> Config:
    """Read the file (None: none), then apply ``environ`` and ``overrides``.

    Keys come from the first of these that has any: ``overrides``, ``VIVAVOCE_API_KEY``, the file. They may be
    empty afterwards. Without a ``[[deployment]]`` there is one, ``gpt-4o-realtime-preview``.

    Raises :class:`ConfigError`.
    """
    overrides = overrides or Overrides()
    table = {} if path is None else _read(path)
    _check_names(table, ("server", "resource", "deployment", "engine"), "", "table")
    base = Path() if path is None else path.parent
    server = _convert(_table(table, "server"), ServerSettings, "server")
    resource = _convert(_table(table, "resource"), ResourceSettings, "resource")
    _check_key_texts(resource.keys, "resource.keys")
    return Config(
        server=_override_tls(_override_server(server, overrides), overrides, base),
        resource=msgspec.structs.replace(resource, keys=_keys(resource.keys, environ, overrides)),
        deployments=_deployments(table),
        engines=_engines(table, environ),
        base=base,
    )


def environment_key(environ: Mapping[str, str]) -> Secret | None:
    """The key in ``VIVAVOCE_API_KEY``; None when the variable is missing or empty. Raises :class:`ConfigError`."""
    value = environ.get(API_KEY_VARIABLE, "")
    if not value:
        return None
    key = Secret(value)
    _check_key_text(key, API_KEY_VARIABLE)
    return key


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}", "not valid TOML: the file is not UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, str(error)) from None


def _syntax_error(path: Path, text: str, message: str) -> ConfigError:
    """tomllib tells the place inside its message, as ``(at line 3, column 5)`` or ``(at end of document)``."""
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if found is None:
        return ConfigError(str(path), f"not valid TOML: {message}")
    problem = f"not valid TOML: {message[: found.start()]}"
    if found[1] is None:
        return ConfigError(f"{path}:{len(text.splitlines()) or 1}", f"{problem} (at the end)")
    return ConfigError(f"{path}:{found[1]}", f"{problem} (column {found[2]})")


def _table(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = parent.get(name, {})
    if not isinstance(value, dict):
        raise ConfigError(name, f"expected a table, [{name}]")
    return value


def _override_server(server: ServerSettings, overrides: Overrides) -> ServerSettings:
    """Checked by the same types as the file, but a fault names the option that carries it."""
    said = {
        "host": overrides.host,
        "port": overrides.port,
        "log_level": overrides.log_level,
        "workers": overrides.workers,
    }
    for name, value in said.items():
        if value is not None:
            checked = _convert({name: value}, ServerSettings, "", lambda field: f"--{field.replace('_', '-')}")
            server = msgspec.structs.replace(server, **{name: getattr(checked, name)})
    return server


def _override_tls(server: ServerSettings, overrides: Overrides, base: Path) -> ServerSettings:
    """Certificate and key belong together: those of the command line replace both of the file."""
    cert, key = server.tls_cert, server.tls_key
    at_cert, at_key = "server.tls_cert", "server.tls_key"
    if overrides.tls_cert is not None or overrides.tls_key is not None:
        cert = None if overrides.tls_cert is None else str(overrides.tls_cert)
        key = None if overrides.tls_key is None else str(overrides.tls_key)
        base, at_cert, at_key = Path(), "--tls-cert", "--tls-key"
    if cert is None:
        if key is not None:
            raise ConfigError(at_key, f"a key needs its certificate, {at_cert}")
        return server
    cert = str(base / cert)
    _check_pem(at_cert, cert, "CERTIFICATE")
    if key is None:
        _check_pem(at_cert, cert, "PRIVATE KEY")
    else:
        key = str(base / key)
        _check_pem(at_key, key, "PRIVATE KEY")
    return msgspec.structs.replace(server, tls_cert=cert, tls_key=key)


def _check_pem(where: str, path: str, block: str) -> None:
    """``ssl`` would tell neither the file nor what is wrong with it."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(where, f"{path} cannot be read: {error.strerror or error}") from None
    if f"{block}-----".encode() not in content:
        raise ConfigError(where, f"{path} holds no PEM block '{block}'")


# -------------------------------------------------------------------------------------------------------- keys


def _keys(from_file: tuple[Secret, ...], environ: Mapping[str, str], overrides: Overrides) -> tuple[Secret, ...]:
    for key in overrides.api_keys:
        _check_key_text(key, "--api-key")
    from_environment = environment_key(environ)
    if overrides.api_keys:
        return overrides.api_keys
    return from_file if from_environment is None else (from_environment,)


def _check_key_texts(keys: tuple[Secret, ...], path: str) -> None:
    for index, key in enumerate(keys):
        _check_key_text(key, f"{path}[{index}]")


def _check_key_text(key: Secret, path: str) -> None:
    """A key travels in headers and URLs."""
    if _KEY.fullmatch(key.reveal()) is None:
        raise ConfigError(path, "a key is one or more printable ASCII characters, without spaces")


# ------------------------------------------------------------------------------------- deployments and engines


def _deployments(table: Mapping[str, Any]) -> tuple[DeploymentSettings, ...]:
    entries = table.get("deployment", [])
    if not isinstance(entries, list):
        raise ConfigError("deployment", "expected an array of tables, [[deployment]]")
    deployments: list[DeploymentSettings] = []
    places: dict[str, int] = {}
    for index, entry in enumerate(entries or [{"name": "gpt-4o-realtime-preview"}]):
        path = f"deployment[{index}]"
        deployment = _convert(entry, DeploymentSettings, path)
        if _DEPLOYMENT_NAME.fullmatch(deployment.name) is None:
            raise ConfigError(
                f"{path}.name",
                f"{deployment.name!r} is no name: a letter or digit, then up to 63 letters, digits, '.', '_', '-'",
            )
        first = places.setdefault(deployment.name, index)
        if first != index:
            raise ConfigError(f"{path}.name", f"'{deployment.name}' is already the name of deployment[{first}]")
        if deployment.speech_model is not None:
            for kind in _SPEECH_MODEL_STANDS_FOR:
                if kind in entry:
                    raise ConfigError(f"{path}.{kind}", "the speech_model stands for it: name one of them")
        if deployment.profile and deployment.profile not in NAMES:
            raise ConfigError(f"{path}.profile", f"'{deployment.profile}' is not one of {', '.join(NAMES)}")
        deployments.append(deployment)
    return tuple(deployments)


class _EngineHead(msgspec.Struct, frozen=True, kw_only=True):
    kind: EngineKind
    type: _Text
    max_concurrent: _Count | None = None


class _Waiting(msgspec.Struct, frozen=True, kw_only=True):
    max_waiting: Annotated[int, msgspec.Meta(ge=0)] = MAX_WAITING


def _engines(table: Mapping[str, Any], environ: Mapping[str, str]) -> Mapping[str, EngineSettings]:
    engines: dict[str, EngineSettings] = {}
    for name, entry in _table(table, "engine").items():
        path = f"engine.{name}"
        if _ENGINE_NAME.fullmatch(name) is None:
            raise ConfigError(path, "the name of an engine is up to 64 letters, digits, '-' and '_'")
        if not isinstance(entry, dict):
            raise ConfigError(path, f"expected a table, [{path}]")
        head = _convert(entry, _EngineHead, path)
        ours = {"kind", "type", "max_concurrent"}
        waiting = _Waiting()
        if head.max_concurrent is not None:
            if head.kind == "vad":
                raise ConfigError(f"{path}.max_concurrent", "a vad works for all sessions together")
            # Without a limit of ours nobody waits, and the option is the engine's own where it has such a one.
            ours.add("max_waiting")
            waiting = _convert(entry, _Waiting, path)
        engines[name] = EngineSettings(
            kind=head.kind,
            type=head.type,
            options=_with_environment(
                {key: value for key, value in entry.items() if key not in ours}, environ, path
            ),
            max_concurrent=head.max_concurrent,
            max_waiting=waiting.max_waiting,
        )
    return engines


def _with_environment(options: Mapping[str, Any], environ: Mapping[str, str], path: str) -> dict[str, Any]:
    """``api_key_env = "NAME"`` stands for ``api_key`` with the value of that variable, and so for every option."""
    resolved: dict[str, Any] = {}
    for key, value in options.items():
        option = key.removesuffix(_FROM_ENVIRONMENT)
        if option in ("", key):
            resolved[key] = value
            continue
        if option in options:
            raise ConfigError(f"{path}.{key}", f"{option} is given too: name one of them")
        if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
            # Not what it is: it may well be the key itself.
            raise ConfigError(f"{path}.{key}", "expected the name of an environment variable, such as MY_KEY")
        if not environ.get(value):
            raise ConfigError(f"{path}.{key}", f"the environment variable {value} is not set")
        resolved[option] = environ[value]
    return resolved


# ------------------------------------------------------------------------------------------ errors with a path

_T = TypeVar("_T", bound=msgspec.Struct)
_MESSAGE: Final = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?P<fault>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)


def _convert(value: object, into: type[_T], path: str, spell: Callable[[str], str] | None = None) -> _T:
    """``msgspec.convert`` whose faults are :class:`ConfigError`. ``spell``: field -> path, else ``path.field``."""
    try:
        return msgspec.convert(value, into, dec_hook=_secret)
    except msgspec.ValidationError as error:
        fault = _located(str(error), value, into, path)
    if spell is not None:
        fault = ConfigError(spell(fault.path.lstrip(".")), fault.problem)
    raise fault


def _secret(into: type, value: object) -> object:
    if into is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


def _located(message: str, value: object, into: type[msgspec.Struct], path: str) -> ConfigError:
    found = _MESSAGE.fullmatch(message)
    assert found is not None
    problem, inner = found["problem"], found["path"] or ""
    field = _FIELD.fullmatch(problem)
    if field is not None:
        where = f"{path}{inner}.{field['name']}"
        if field["fault"] == "missing required":
            return ConfigError(where, "is required")
        return ConfigError(where, f"unknown option{_suggestion(field['name'], into.__struct_fields__)}")
    if problem.startswith("Invalid enum value"):
        name = inner.removeprefix(".")
        found_value = value.get(name) if isinstance(value, dict) else None
        choices = ", ".join(get_args(get_type_hints(into)[name]))
        return ConfigError(f"{path}{inner}", f"{found_value!r} is not one of {choices}")
    text = problem.replace("`", "").replace("object", "table")
    return ConfigError(f"{path}{inner}", text[:1].lower() + text[1:])


def _check_names(table: Mapping[str, Any], known: tuple[str, ...], prefix: str, what: str) -> None:
    for name in table:
        if name not in known:
            raise ConfigError(f"{prefix}{name}", f"unknown {what}{_suggestion(name, known)}")


def _suggestion(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f" (there are: {', '.join(known)})"
