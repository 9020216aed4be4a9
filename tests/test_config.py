from __future__ import annotations

import tomllib
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from vivavoce import config as module
from vivavoce.config import (
    DEFAULT_INSTRUCTIONS,
    ENGINE_KINDS,
    Config,
    ConfigError,
    EngineSettings,
    Overrides,
    Secret,
    environment_key,
    load_config,
)
from vivavoce.engines import registry
from vivavoce.wire.dialects.profiles import PROFILES

FULL = """
[server]
host = "0.0.0.0"
port = 9000
max_sessions = 7
max_custom_headers = 3
shutdown_grace_s = 1
ping_interval_s = 2.5
session_seconds = 60
log_level = "debug"

[resource]
name = "bank"
keys = ["first", "second"]
subprotocol_keys = false

[[deployment]]
name = "voice"
model = "gpt-4o-mini-realtime-preview"
version = "2024-12-17"
profile = "azure-2024-10-01"
conversation_created = false
strict = false
instructions = ""
capacity = 2
requests_per_minute = 5
vad = "v"
transcriber = "t"
language_model = "teller"
synthesizer = "s"

[[deployment]]
name = "other"

[engine.teller]
kind = "language_model"
type = "scripted"
script = "bank.toml"
word_delay_ms = 3
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "vivavoce.toml"
    file.write_text(text, encoding="utf-8")
    return file


def load(text: str, folder: Path, **said: object) -> Config:
    file = written(folder, text)
    return load_config(file, environ={}, overrides=Overrides(**said))  # type: ignore[arg-type]  # a table's values


def test_without_a_file_there_is_one_deployment_and_no_key() -> None:
    config = load_config(None, environ={})
    (deployment,) = config.deployments
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8089)
    assert config.resource.keys == ()
    assert deployment.name == deployment.model == "gpt-4o-realtime-preview"
    assert deployment.version == "2024-12-17"
    assert deployment.profile == ""
    assert deployment.instructions == DEFAULT_INSTRUCTIONS
    assert deployment.engines == {
        "vad": "silero", "transcriber": "pocketsphinx", "end_of_turn": "turn_hints", "language_model": "scripted",
        "synthesizer": "espeak",
    }  # fmt: skip


def test_a_file_without_deployments_gets_the_usual_one(tmp_path: Path) -> None:
    assert load("", tmp_path).deployments == load_config(None, environ={}).deployments


def test_every_option_of_a_file_is_read(tmp_path: Path) -> None:
    config = load(FULL, tmp_path)
    assert config.server == module.ServerSettings(
        host="0.0.0.0", port=9000, max_sessions=7, max_custom_headers=3, shutdown_grace_s=1.0, ping_interval_s=2.5,
        session_seconds=60, log_level="debug",
    )  # fmt: skip
    assert config.resource == module.ResourceSettings(
        name="bank", keys=(Secret("first"), Secret("second")), subprotocol_keys=False
    )
    assert config.deployments[0] == module.DeploymentSettings(
        name="voice", model="gpt-4o-mini-realtime-preview", version="2024-12-17", profile="azure-2024-10-01",
        conversation_created=False, strict=False, instructions="", capacity=2, requests_per_minute=5, vad="v",
        transcriber="t", language_model="teller", synthesizer="s",
    )  # fmt: skip
    assert config.engines == {
        "teller": EngineSettings(
            kind="language_model", type="scripted", options={"script": "bank.toml", "word_delay_ms": 3}
        )
    }
    assert config.base == tmp_path


def test_limits_of_an_engine_are_ours_where_they_are_asked_for(tmp_path: Path) -> None:
    """Otherwise ``max_waiting`` is the engine's own."""
    head = "kind = 'synthesizer'\ntype = 'x'\nmax_waiting = 3\n"
    engines = load(f"[engine.a]\n{head}[engine.b]\n{head}max_concurrent = 2", tmp_path).engines
    assert engines == {
        "a": EngineSettings(kind="synthesizer", type="x", options={"max_waiting": 3}),
        "b": EngineSettings(kind="synthesizer", type="x", options={}, max_concurrent=2, max_waiting=3),
    }


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("[servr]", "servr", "unknown table; did you mean 'server'?"),
        ("[[deployments]]", "deployments", "unknown table; did you mean 'deployment'?"),
        ("server = 1", "server", "expected a table, [server]"),
        ("[deployment]", "deployment", "expected an array of tables, [[deployment]]"),
        ("deployment = [1]", "deployment[0]", "expected table, got int"),
        ("[server]\nport = 'x'", "server.port", "expected int, got str"),
        ("[server]\nport = true", "server.port", "expected int, got bool"),
        ("[server]\nport = 65536", "server.port", "expected int <= 65535"),
        ("[server]\nmax_sessions = 0", "server.max_sessions", "expected int >= 1"),
        ("[server]\nshutdown_grace_s = nan", "server.shutdown_grace_s", "expected float >= 0.0"),
        ("[server]\nping_interval_s = inf", "server.ping_interval_s", "expected float <= 3600.0"),
        ("[server]\nhots = 'x'", "server.hots", "unknown option; did you mean 'host'?"),
        ("[server]\nlog_level = 'loud'", "server.log_level", "'loud' is not one of debug, info, warning, error"),
        ("[resource]\nkeys = 'x'", "resource.keys", "expected array, got str"),
        ("[resource]\nkeys = ['x', 1]", "resource.keys[1]", "expected str, got int"),
        ("[resource]\nkeys = ['x', '']", "resource.keys[1]",
         "a key is one or more printable ASCII characters, without spaces"),
        ("[engine.v]\nkind='vad'\ntype='silero'\nmax_concurrent = 2", "engine.v.max_concurrent",
         "a vad works for all sessions together"),
        ("[engine.s]\nkind='synthesizer'\ntype='x'\nmax_concurrent = 0", "engine.s.max_concurrent",
         "expected int >= 1"),
        ("[engine.s]\nkind='synthesizer'\ntype='x'\nmax_concurrent = 1\nmax_waiting = -1", "engine.s.max_waiting",
         "expected int >= 0"),
        ("[[deployment]]", "deployment[0].name", "is required"),
        ("[[deployment]]\nname = 'a b'", "deployment[0].name",
         "'a b' is no name: a letter or digit, then up to 63 letters, digits, '.', '_', '-'"),
        ("[[deployment]]\nname = 'a'\n[[deployment]]\nname = 'b'\n[[deployment]]\nname = 'a'", "deployment[2].name",
         "'a' is already the name of deployment[0]"),
        ("[[deployment]]\nname = 'a'\n[[deployment]]\nname = 'b'\nsynthesiser = 'x'", "deployment[1].synthesiser",
         "unknown option; did you mean 'synthesizer'?"),
        ("[[deployment]]\nname = 'a'\nprofile = 'ga'", "deployment[0].profile",
         "'ga' is not one of azure-2024-10-01, azure-2024-12-17, azure-2025-04, openai-ga, azure-ga"),
        ("[[deployment]]\nname = 'a'\ncapacity = 0", "deployment[0].capacity", "expected int >= 1"),
        ("engine = 1", "engine", "expected a table, [engine]"),
        ("[engine]\nx = 1", "engine.x", "expected a table, [engine.x]"),
        ("[engine.'a b']\nkind = 'vad'", "engine.a b",
         "the name of an engine is up to 64 letters, digits, '-' and '_'"),
        ("[engine.x]\ntype = 'y'", "engine.x.kind", "is required"),
        ("[engine.x]\nkind = 'vad'", "engine.x.type", "is required"),
        ("[engine.x]\ntype = 'y'\nkind = 'tts'", "engine.x.kind",
         "'tts' is not one of vad, transcriber, end_of_turn, language_model, synthesizer, speech_model"),
        ("[[deployment]]\nname = 'a'\nspeech_model = ''", "deployment[0].speech_model",
         "expected str of length >= 1"),
        ("[[deployment]]\nname = 'a'\n[[deployment]]\nname = 'b'\nspeech_model = 'r'\nlanguage_model = 'scripted'",
         "deployment[1].language_model", "the speech_model stands for it: name one of them"),
        ("[[deployment]]\nname = 'a'\nspeech_model = 'r'\nsynthesizer = 'espeak'", "deployment[0].synthesizer",
         "the speech_model stands for it: name one of them"),
    ],
)  # fmt: skip
def test_faults_name_their_place(text: str, path: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        load(text, tmp_path)
    assert (fault.value.path, fault.value.problem) == (path, problem)
    assert str(fault.value) == f"{path}: {problem}"


def test_an_unknown_name_without_a_near_one_lists_all(tmp_path: Path) -> None:
    known = (
        "server, resource, account, audit, models, limits, capacity, counters, deployment, recipe, prompt, engine, "
        "store, management, subscription, identity, entra, issuer, development_issuer, role_assignment"
    )
    with pytest.raises(ConfigError, match=rf"^zzz: unknown table \(there are: {known}\)$"):
        load("[zzz]", tmp_path)


@pytest.mark.parametrize(
    ("data", "line", "problem"),
    [
        (b"[server]\nport 1\n", 2, "not valid TOML: Expected '=' after a key in a key/value pair (column 6)"),
        (b"a = 1\nb =", 2, "not valid TOML: Invalid value (at the end)"),
        (b"[server]\nhost = '\xff'\n", 2, "not valid TOML: the file is not UTF-8"),
    ],
)
def test_broken_toml_names_file_and_line(data: bytes, line: int, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError) as fault:
        load_config(file, environ={})
    assert (fault.value.path, fault.value.problem) == (f"{file}:{line}", problem)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    file = tmp_path / "none.toml"
    with pytest.raises(ConfigError) as fault:
        load_config(file, environ={})
    assert str(fault.value) == f"{file}: cannot be read: No such file or directory"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_pinned(profile: str, tmp_path: Path) -> None:
    config = load(f"[[deployment]]\nname = 'a'\nversion = '2024-10-01'\nprofile = '{profile}'", tmp_path)
    assert config.deployments[0].profile == profile


@pytest.mark.parametrize("version", ["2024-10-01", "2025-04-01", "1", ""])
def test_a_version_pins_no_profile(version: str, tmp_path: Path) -> None:
    config = load(f"[[deployment]]\nname = 'a'\nversion = '{version}'", tmp_path)
    assert config.deployments[0].profile == ""


# -------------------------------------------------------------------------------------------------- precedence


@pytest.mark.parametrize(
    ("said", "environ", "file", "keys"),
    [
        (["cli"], {"VIVAVOCE_API_KEY": "env"}, ["file"], ["cli"]),
        ([], {"VIVAVOCE_API_KEY": "env"}, ["file"], ["env"]),
        ([], {"VIVAVOCE_API_KEY": ""}, ["file"], ["file"]),
        ([], {}, ["one", "two"], ["one", "two"]),
        (["one", "two"], {}, [], ["one", "two"]),
        ([], {}, [], []),
    ],
)
def test_the_first_source_with_keys_counts(
    said: list[str], environ: dict[str, str], file: list[str], keys: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f"[resource]\nkeys = {file}", encoding="utf-8")
    config = load_config(path, environ=environ, overrides=Overrides(api_keys=tuple(Secret(key) for key in said)))
    assert [key.reveal() for key in config.resource.keys] == keys


def test_bad_keys_name_their_source() -> None:
    with pytest.raises(ConfigError, match=r"^--api-key: a key is"):
        load_config(None, environ={}, overrides=Overrides(api_keys=(Secret("a b"),)))
    with pytest.raises(ConfigError, match=r"^VIVAVOCE_API_KEY: a key is"):
        environment_key({"VIVAVOCE_API_KEY": "schlüssel"})


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    server = load(FULL, tmp_path, host="::1", port=0, log_level="error").server
    assert (server.host, server.port, server.log_level) == ("::1", 0, "error")
    assert server.max_sessions == 7


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"port": -1}, "--port: expected int >= 0"),
        ({"host": ""}, "--host: expected str of length >= 1"),
        ({"log_level": "loud"}, "--log-level: 'loud' is not one of debug, info, warning, error"),
    ],
)
def test_faults_of_the_command_line_name_the_option(said: dict[str, object], line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        load("", tmp_path, **said)
    assert str(fault.value) == line


# ----------------------------------------------------------------------------------------------------- secrecy


def test_no_repr_shows_a_key_or_an_option_of_an_engine(tmp_path: Path) -> None:
    text = FULL.replace('"first"', '"s3cret-key"').replace("bank.toml", "s3cret-option")
    config = load(text, tmp_path, api_keys=())
    assert config.resource.keys[0].reveal() == "s3cret-key"
    for shown in (
        repr(config),
        str(config),
        repr(config.resource),
        repr(config.engines),
        f"{config.resource.keys}",
    ):
        assert "s3cret" not in shown
    assert "s3cret" not in repr(Overrides(api_keys=(Secret("s3cret"),)))
    assert "script, word_delay_ms" in repr(config.engines)


def test_a_fault_beside_a_key_does_not_show_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        load("[resource]\nkeys = ['s3 cret']", tmp_path)
    assert "cret" not in str(fault.value)
    assert fault.value.__cause__ is None


def test_secrets_compare_by_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert f"{Secret('a')!s} {Secret('a')!r}" == "Secret(***) Secret(***)"


def test_keys_can_be_replaced() -> None:
    config = load_config(None, environ={})
    assert config.with_keys(Secret("a")).resource.keys == (Secret("a"),)
    assert config.resource.keys == ()


# ------------------------------------------------------------------------------------------------------- sundry


def test_unused_engines_are_known(tmp_path: Path) -> None:
    config = load(FULL + "\n[engine.spare]\nkind = 'vad'\ntype = 'silero'\n", tmp_path)
    assert config.unused_engines() == ("spare",)


def test_an_engine_of_another_kind_is_not_what_a_deployment_uses(tmp_path: Path) -> None:
    config = load("[engine.silero]\nkind = 'transcriber'\ntype = 'x'\n", tmp_path)
    assert config.unused_engines() == ("silero",)


def test_a_speech_model_stands_for_language_model_and_synthesizer(tmp_path: Path) -> None:
    text = """
    [[deployment]]
    name = "a"
    speech_model = "r"
    [engine.r]
    kind = "speech_model"
    type = "x"
    [engine.scripted]
    kind = "language_model"
    type = "scripted"
    """
    config = load(text, tmp_path)
    assert config.deployments[0].engines == {
        "vad": "silero", "transcriber": "pocketsphinx", "end_of_turn": "turn_hints", "speech_model": "r",
    }  # fmt: skip
    assert config.unused_engines() == ("scripted",)


def test_the_kinds_are_those_of_the_registry() -> None:
    assert module.ENGINE_KINDS == registry.ENGINE_KINDS == get_args(module.EngineKind)


# --------------------------------------------------------------------------------------------------- the manual

TABLES: dict[str, type[msgspec.Struct]] = {
    "`[server]`": module.ServerSettings,
    "`[resource]`": module.ResourceSettings,
    "`[audit]`": module.AuditSettings,
    "`[models]`": module.ModelsSettings,
    "`[limits]`": module.LimitSettings,
    "`[[capacity]]`": module.CapacitySettings,
    "`[counters]`": module.CountersSettings,
    "`[management]`": module.ManagementSettings,
    "`[[subscription]]`": module.SubscriptionSettings,
    "`[[account]]`": module.AccountSettings,
    "`[[deployment]]`": module.DeploymentSettings,
    "`[recipe.NAME]`": module.RecipeSettings,
    "`[store]`": module.StoreSettings,
}
MANUAL = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"


def test_the_manual_names_every_option_with_its_default() -> None:
    sections = MANUAL.read_text(encoding="utf-8").split("\n## ")
    told_in_words = set()
    for heading, struct in TABLES.items():
        (section,) = [section for section in sections if section.startswith(heading)]
        for option in msgspec.structs.fields(struct):
            if struct is module.RecipeSettings and option.name in module.WorkSettings.__struct_fields__:
                assert f"`{option.name}`" in section or option.name in ENGINE_KINDS
                continue
            (row,) = [line for line in section.splitlines() if line.startswith(f"| `{option.name}` |")]
            default = row.split("|")[2].strip()
            if default.startswith("`"):
                assert tomllib.loads(f"x = {default.strip('`')}")["x"] == _plain(option.default)
            else:
                told_in_words.add(option.name)
    assert told_in_words == {
        "catalogue",
        "name",
        "path",
        "profile",
        "ptus_per_region",
        "instructions",
        "connections_per_minute",
        "max_sessions",
        "request_window_s",
        "spillover",
        "requests_per_minute",
        "session_seconds",
        "context_window",
        "max_output",
        "speech_model",
        "tls_cert",
        "tls_key",
        "data",
        "id",
        "subscription",
        "sku",
        "units",
        "resource_group",
        "location",
        "tenant",
        "models",
        "url",
        "secret",
    }


def _plain(default: object) -> object:
    return list(default) if isinstance(default, tuple) else default


def test_the_example_of_the_manual_loads(tmp_path: Path) -> None:
    example = MANUAL.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    config = load(example, tmp_path)
    assert [deployment.name for deployment in config.deployments] == ["gpt-4o-realtime-preview", "bank-teller"]
    assert config.unused_engines() == ()


ENGINE = '[engine.far]\nkind = "language_model"\ntype = "openai_compatible"\nmodel = "m"\n'


def test_an_option_of_an_engine_comes_from_the_environment(tmp_path: Path) -> None:
    path = written(tmp_path, ENGINE + 'api_key_env = "UPSTREAM"\n')
    config = load_config(path, environ={"UPSTREAM": "sesame"})
    assert config.engines["far"].options == {"model": "m", "api_key": "sesame"}
    assert "sesame" not in repr(config)


@pytest.mark.parametrize(
    ("line", "environ", "problem"),
    [
        ('api_key_env = "UPSTREAM"', {}, "the environment variable UPSTREAM is not set"),
        ('api_key_env = "UPSTREAM"', {"UPSTREAM": ""}, "the environment variable UPSTREAM is not set"),
        ("api_key_env = 1", {"1": "x"}, "expected the name of an environment variable, such as MY_KEY"),
        ('api_key_env = "sk-Key1"', {}, "expected the name of an environment variable, such as MY_KEY"),
        ('api_key_env = "0a1b2c"', {}, "expected the name of an environment variable, such as MY_KEY"),
        ('api_key_env = "a1b2c3"', {}, "expected the name of an environment variable, such as MY_KEY"),
        ('api_key_env = "A"\napi_key = "b"', {"A": "x"}, "api_key is given too: name one of them"),
    ],
)
def test_faults_of_an_option_from_the_environment(
    line: str, environ: dict[str, str], problem: str, tmp_path: Path
) -> None:
    path = written(tmp_path, ENGINE + line)
    with pytest.raises(ConfigError) as raised:
        load_config(path, environ=environ)
    assert (raised.value.path, raised.value.problem) == ("engine.far.api_key_env", problem)


def test_the_audit_is_found_from_the_folder_of_the_file(tmp_path: Path) -> None:
    assert load('[audit]\npath = "audit.jsonl"', tmp_path).audit.path == str(tmp_path / "audit.jsonl")
    assert load("", tmp_path).audit.path is None


# ---------------------------------------------------------------------------------------------------- counters


def test_counters_are_ours_unless_a_redis_is_named(tmp_path: Path) -> None:
    assert load("", tmp_path).counters.url is None
    counters = load('[counters]\nurl = "rediss://user:hush@host/0"\non_loss = "local_share"', tmp_path).counters
    assert counters.url is not None
    assert counters.url.reveal() == "rediss://user:hush@host/0"
    assert (counters.on_loss, counters.prefix, "hush" in repr(counters)) == ("local_share", "vivavoce", False)


@pytest.mark.parametrize(
    ("table", "path", "problem"),
    [
        ('url = "http://host"', "counters.url", "a URL that begins with redis://, rediss://, unix:// is expected"),
        ('on_loss = "open"', "counters.on_loss", "'open' is not one of closed, local_share"),
        ("limit = 1", "counters.limit", "unknown option (there are: url, on_loss, prefix)"),
    ],
)
def test_faults_of_counters(table: str, path: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        load(f"[counters]\n{table}", tmp_path)
    assert (fault.value.path, fault.value.problem) == (path, problem)


PROVISIONED = "[[deployment]]\nname = 'a'\nsku = 'GlobalProvisionedManaged'\n"


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        (PROVISIONED, "capacity", "say how many units (PTU) the GlobalProvisionedManaged deployment has"),
        (PROVISIONED + "capacity = 5\nspillover = 'a'", "spillover", "it cannot spill over to itself"),
        (PROVISIONED + "capacity = 5\nspillover = 'b'", "spillover", "its account has no deployment 'b'"),
        (
            PROVISIONED + "capacity = 5\nrequests_per_minute = 6",
            "requests_per_minute",
            "a provisioned deployment counts utilization, and no requests",
        ),
        (
            "[[deployment]]\nname = 'a'\nspillover = 'b'",
            "spillover",
            "a GlobalStandard deployment has none: its sku is not provisioned",
        ),
    ],
)
def test_faults_of_provisioned_deployments(text: str, path: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        load(text, tmp_path)
    assert (fault.value.path, fault.value.problem) == (f"deployment[0].{path}", problem)
