from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vivavoce.config import (
    NO_GUID,
    AccountSettings,
    Config,
    ConfigError,
    Overrides,
    RecipeSettings,
    Secret,
    StoreSettings,
    kept_secret,
    load_config,
    open_data_folder,
    private_file,
)

SECRET = "s" * 32


def load(text: str, folder: Path, environ: dict[str, str] | None = None, **said: object) -> Config:
    file = folder / "vivavoce.toml"
    file.write_text(text, encoding="utf-8")
    overrides = Overrides(**said)  # type: ignore[arg-type]  # a table's values
    return load_config(file, environ=environ or {}, overrides=overrides)


# ------------------------------------------------------------------------------------------------------ accounts


def test_the_resource_is_the_first_account_and_the_others_take_over_where_it_is(tmp_path: Path) -> None:
    text = """
    [resource]
    name = "voice"
    subscription = "sub"
    resource_group = "group"
    location = "swedencentral"
    tenant = "ten"
    subdomain = "front"
    keys = ["one"]
    [[account]]
    name = "bank"
    keys = ["two", "three"]
    [[account]]
    name = "shop"
    subscription = "other"
    resource_group = "shops"
    location = "eastus2"
    tenant = "elsewhere"
    subdomain = "shop-voice"
    """
    config = load(text, tmp_path)
    assert config.accounts == (
        AccountSettings(
            name="voice", subscription="sub", resource_group="group", location="swedencentral", tenant="ten",
            subdomain="front", keys=(Secret("one"),),
        ),
        AccountSettings(
            name="bank", subscription="sub", resource_group="group", location="swedencentral", tenant="ten",
            keys=(Secret("two"), Secret("three")),
        ),
        AccountSettings(
            name="shop", subscription="other", resource_group="shops", location="eastus2", tenant="elsewhere",
            subdomain="shop-voice",
        ),
    )  # fmt: skip


def test_without_a_file_there_is_one_account() -> None:
    (account,) = load_config(None, environ={}).accounts
    assert (account.name, account.subscription, account.resource_group) == ("vivavoce", NO_GUID, "vivavoce")
    assert (account.location, account.tenant) == ("eastus2", NO_GUID)


def test_the_keys_of_the_command_line_are_the_first_accounts(tmp_path: Path) -> None:
    config = load("[[account]]\nname = 'b'\nkeys = ['two']", tmp_path, api_keys=(Secret("said"),))
    assert [one.keys for one in config.accounts] == [(Secret("said"),), (Secret("two"),)]


def test_deployments_of_two_accounts_may_have_one_name(tmp_path: Path) -> None:
    text = "[[account]]\nname = 'b'\n[[deployment]]\nname = 'd'\n[[deployment]]\nname = 'd'\naccount = 'b'"
    assert [one.account for one in load(text, tmp_path).deployments] == ["", "b"]


# ------------------------------------------------------------------------------------------------------- recipes


def test_recipes_are_read_in_their_order(tmp_path: Path) -> None:
    text = """
    [recipe.second]
    models = ["*"]
    [recipe.first]
    models = ["gpt-4o-mini-*"]
    profile = "azure-2024-10-01"
    conversation_created = false
    strict = false
    instructions = "Be brief."
    heard_text = false
    speculate = true
    vad = "v"
    transcriber = "t"
    end_of_turn = "e"
    language_model = "l"
    synthesizer = "s"
    """
    recipes = load(text, tmp_path).recipes
    assert list(recipes) == ["second", "first"]
    assert recipes["first"] == RecipeSettings(
        models=("gpt-4o-mini-*",), profile="azure-2024-10-01", conversation_created=False, strict=False,
        instructions="Be brief.", heard_text=False, speculate=True, vad="v", transcriber="t", end_of_turn="e",
        language_model="l", synthesizer="s",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "name", "version", "serves"),
    [
        ("gpt-4o", "gpt-4o", "1", True),
        ("gpt-4o", "gpt-4o", "", True),
        ("gpt-4o", "gpt-4o-mini", "1", False),
        ("gpt-4o-*", "gpt-4o", "1", True),
        ("gpt-4o-*", "gpt-4o", "", False),
        ("*-2024-12-17", "gpt-4o", "2024-12-17", True),
        ("*.ft-*", "gpt-4o-mini.ft-0123-bank", "1", True),
        ("*.ft-*", "gpt-4o-mini", "1", False),
        ("GPT-4o", "gpt-4o", "1", False),
        ("gpt-4?", "gpt-4o", "1", True),
        ("gpt-[34]o", "gpt-4o", "1", True),
    ],
)
def test_a_recipe_serves_the_models_that_it_names(pattern: str, name: str, version: str, serves: bool) -> None:
    assert RecipeSettings(models=("nothing-else", pattern)).serves(name, version) is serves


def test_an_engine_of_a_recipe_is_used(tmp_path: Path) -> None:
    text = """
    [recipe.r]
    models = ["*"]
    language_model = "mine"
    [engine.mine]
    kind = "language_model"
    type = "scripted"
    [engine.spare]
    kind = "language_model"
    type = "scripted"
    """
    assert load(text, tmp_path).unused_engines() == ("spare",)


# --------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("[resource]\nname = 'a b'", "resource.name",
         "'a b' is no name: a letter or digit, then up to 63 letters, digits, '.', '_', '-'"),
        ("[resource]\nsubscription = 'a/b'", "resource.subscription",
         "'a/b' has other characters than letters, digits, and ._()-"),
        ("[resource]\ntenant = ''", "resource.tenant", "expected str of length >= 1"),
        ("[resource]\nsubdomain = 'a.b'", "resource.subdomain", "'a.b' is no label of a host name"),
        ("[account]", "account", "expected an array of tables, [[account]]"),
        ("account = [1]", "account[0]", "expected table, got int"),
        ("[[account]]\nkeys = []", "account[0].name", "is required"),
        ("[[account]]\nname = 'a'\nlocatoin = 'x'", "account[0].locatoin",
         "unknown option; did you mean 'location'?"),
        ("[[account]]\nname = 'Vivavoce'", "account[0].name", "'Vivavoce' is already the name of resource"),
        ("[[account]]\nname = 'a'\n[[account]]\nname = 'A'", "account[1].name",
         "'A' is already the name of account[0]"),
        ("[[account]]\nname = 'a'\nsubdomain = 'VIVAVOCE'", "account[0].subdomain",
         "it is already that of resource"),
        ("[[account]]\nname = 'a'\n[[account]]\nname = 'b'\nsubdomain = 'a'", "account[1].subdomain",
         "it is already that of account[0]"),
        ("[resource]\nkeys = ['k']\n[[account]]\nname = 'a'\nkeys = ['x', 'k']", "account[0].keys[1]",
         "it is already a key of resource, and a key opens one account"),
        ("[[account]]\nname = 'a'\nkeys = ['x y']", "account[0].keys[0]",
         "a key is one or more printable ASCII characters, without spaces"),
        ("[[deployment]]\nname = 'd'\naccount = 'other'", "deployment[0].account",
         "there is no account 'other' (there are: vivavoce)"),
        ("[[deployment]]\nname = 'd'\n[[deployment]]\nname = 'D'\naccount = 'vivavoce'", "deployment[1].name",
         "'D' is already the name of deployment[0]"),
        ("[[deployment]]\nname = 'd'\nsku = 'Free'", "deployment[0].sku",
         "'Free' is not one of Standard, GlobalStandard, DataZoneStandard, ProvisionedManaged, "
         "GlobalProvisionedManaged, DataZoneProvisionedManaged"),
        ("recipe = 1", "recipe", "expected a table, [recipe]"),
        ("[recipe]\nr = 1", "recipe.r", "expected a table, [recipe.r]"),
        ("[recipe.'a b']\nmodels = ['*']", "recipe.a b",
         "the name of a recipe is up to 64 letters, digits, '-' and '_'"),
        ("[recipe.r]", "recipe.r.models", "is required"),
        ("[recipe.r]\nmodels = []", "recipe.r.models", "name at least one model, or '*' for all"),
        ("[recipe.r]\nmodels = ['']", "recipe.r.models[0]", "expected str of length >= 1"),
        ("[recipe.r]\nmodels = ['*']\nname = 'x'", "recipe.r.name", "unknown option (there are: profile, "
         "conversation_created, strict, instructions, heard_text, connections_per_minute, max_sessions, "
         "context_window, max_output, speculate, vad, transcriber, end_of_turn, language_model, "
         "synthesizer, speech_model, models)"),
        ("[recipe.r]\nmodels = ['*']\nprofile = 'ga'", "recipe.r.profile",
         "'ga' is not one of azure-2024-10-01, azure-2024-12-17, azure-2025-04, openai-ga, azure-ga"),
        ("[recipe.r]\nmodels = ['*']\nspeech_model = 'x'\nlanguage_model = 'y'", "recipe.r.language_model",
         "the speech_model stands for it: name one of them"),
        ("store = 'x'", "store", "expected a table, [store]"),
        ("[store]\nuri = 'x'", "store.uri", "unknown option; did you mean 'url'?"),
        ("[store]\nsecret = 'short'", "store.secret", "it must have at least 32 characters"),
        ("[store]\nurl_env = 'MISSING'", "store.url_env", "the environment variable MISSING is not set"),
        ("[server]\ndata = ''", "server.data", "expected str of length >= 1"),
    ],
)  # fmt: skip
def test_faults_name_their_place(text: str, path: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        load(text, tmp_path)
    assert (fault.value.path, fault.value.problem) == (path, problem)


def test_a_key_of_the_command_line_must_not_be_another_accounts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        load("[[account]]\nname = 'a'\nkeys = ['k3y']", tmp_path, api_keys=(Secret("k3y"),))
    assert fault.value.path == "account[0].keys[0]"
    assert "k3y" not in str(fault.value)


# ------------------------------------------------------------------------------------------- store, data folder


def test_there_is_no_store_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert load("", tmp_path).store is None
    assert load("[store]", tmp_path).store == StoreSettings()


def test_the_url_and_the_secret_may_come_from_the_environment(tmp_path: Path) -> None:
    config = load(
        "[store]\nurl_env = 'DATABASE_URL'\nsecret_env = 'KEY_SECRET'",
        tmp_path,
        {"DATABASE_URL": "postgresql+psycopg://u:pass@h/d", "KEY_SECRET": SECRET},
    )
    assert config.store == StoreSettings(url=Secret("postgresql+psycopg://u:pass@h/d"), secret=Secret(SECRET))
    assert "pass" not in repr(config)
    assert SECRET not in repr(config)


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HOME": "/home/ann"}, "/home/ann/.local/share/vivavoce"),
        ({"HOME": "/home/ann", "XDG_DATA_HOME": "/data"}, "/data/vivavoce"),
        ({"HOME": "/home/ann", "XDG_DATA_HOME": "relative"}, "/home/ann/.local/share/vivavoce"),
        ({"HOME": "/home/ann", "XDG_DATA_HOME": ""}, "/home/ann/.local/share/vivavoce"),
    ],
)
def test_the_data_folder_is_the_users(environ: dict[str, str], folder: str) -> None:
    assert load_config(None, environ=environ).data_folder == Path(folder)


def test_the_data_folder_of_a_file_starts_from_the_file(tmp_path: Path) -> None:
    config = load("[server]\ndata = 'kept'", tmp_path, {"HOME": "/home/ann"})
    assert config.data_folder == tmp_path / "kept"


def test_a_data_folder_that_nothing_tells_is_a_fault_when_it_is_needed() -> None:
    config = load_config(None, environ={})
    with pytest.raises(ConfigError) as fault:
        open_data_folder(config)
    assert str(fault.value) == "server.data: neither XDG_DATA_HOME nor HOME is set: name a folder"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_kept_is_for_its_user_alone(tmp_path: Path) -> None:
    folder = open_data_folder(load("[server]\ndata = 'deep/kept'", tmp_path))
    secret = kept_secret(folder, "secret")
    database = private_file(folder, "store.db")
    assert (mode(folder), mode(folder / "secret"), mode(database)) == (0o700, 0o600, 0o600)
    assert sorted(os.listdir(folder)) == ["secret", "store.db"]
    assert len(secret.reveal()) == 64
    assert kept_secret(folder, "secret") == secret
    assert kept_secret(folder, "other") != secret
    database.write_bytes(b"kept")
    assert private_file(folder, "store.db").read_bytes() == b"kept"


def test_all_who_ask_at_once_get_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: kept_secret(tmp_path, "secret").reveal(), range(64)))
    assert len(set(found)) == 1
    assert os.listdir(tmp_path) == ["secret"]


def test_what_cannot_be_used_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("")
    (tmp_path / "taken").mkdir()
    config = load("[server]\ndata = 'kept'", tmp_path)
    with pytest.raises(ConfigError, match=r"^server\.data: \S+/kept cannot be made: "):
        open_data_folder(config)
    with pytest.raises(ConfigError, match=r"^server\.data: \S+/taken cannot be used: "):
        kept_secret(tmp_path, "taken")
    with pytest.raises(ConfigError, match=r"^server\.data: \S+/taken cannot be used: "):
        private_file(tmp_path, "taken")


def test_a_file_that_holds_no_secret_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hi")
    with pytest.raises(ConfigError, match="holds no secret of ours"):
        kept_secret(tmp_path, "secret")
