"""The verbs of the command line that talk to a server's management API, on a real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import server_fixtures
from managed import (
    ABROAD,
    ABROAD_ACCOUNT,
    BANK,
    BANK_KEY,
    CONTRIBUTOR,
    MODEL,
    OTHER_TENANT,
    SUB,
    TUNED,
    VERSION,
    managed,
    management_token,
)
from server_fakes import Fakes, serving

from vivavoce import cli
from vivavoce.server.app import Server

fakes = server_fixtures.fakes
STRANGER = "aaaaaaaa-0000-0000-0000-0000000000ff"


@pytest_asyncio.fixture
async def server(tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setenv("VIVAVOCE_TOKEN", management_token())
    async with serving(managed(tmp_path)) as server:
        monkeypatch.setenv("VIVAVOCE_URL", f"http://127.0.0.1:{server.port}")
        yield server


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    async def run(*words: str, code: int = 0) -> str:
        """What a command prints: on stdout, or where it fails on stderr."""
        got = await asyncio.to_thread(cli.main, words)
        out, err = capsys.readouterr()
        assert got == code, out + err
        return out if code == 0 else err

    return run


async def test_a_deployment(server: Server, run: Any) -> None:
    made = await run("deployment", "create", "teller", "--account", "bank", "--model", MODEL, "--tag", "a=b")
    assert made.splitlines()[-2].split() == [
        *("teller", MODEL, VERSION, "GlobalStandard", "1", "OnceCurrentVersionExpired", "Succeeded")
    ]
    listed = json.loads(await run("deployment", "list", "--account", BANK, "--json"))
    assert [(one["name"], one["tags"]) for one in listed] == [("teller", {"a": "b"})]
    changed = await run(
        *("deployment", "create", "teller", "--account", "bank", "--model", MODEL),
        *("--capacity", "5", "--upgrade", "NoAutoUpgrade", "--version", VERSION, "--json"),
    )
    assert json.loads(changed)["sku"] == {"name": "GlobalStandard", "capacity": 5}
    shown = await run("deployment", "show", "teller", "--account", "bank")
    assert "properties.provisioningState" in shown
    usage = await run("usage", "--location", "eastus2", "--account", "bank")
    assert f"OpenAI.GlobalStandard.{MODEL}" in usage
    assert json.loads(await run("usage", "--account", "bank", "--json"))[0]["currentValue"] == 0
    assert (
        await run("deployment", "delete", "teller", "--account", "bank") == f"deleted: {BANK}/deployments/teller\n"
    )
    gone = await run("deployment", "delete", "teller", "--account", "bank", code=1)
    assert gone.startswith("vivavoce: DeploymentNotFound: ")


async def test_a_fine_tuned_model_of_another_tenant(
    server: Server, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVAVOCE_TOKEN", management_token(CONTRIBUTOR))
    words = (
        *("deployment", "create", "tuned", "--account", BANK, "--model", TUNED, "--version", "1"),
        *("--sku", "Standard", "--source-account", ABROAD_ACCOUNT),
    )
    assert "LinkedAuthorizationFailed" in await run(*words, code=1)
    there = management_token(ABROAD, tenant=OTHER_TENANT)
    made = json.loads(await run(*words, "--source-token", there, "--json"))
    assert made["properties"]["model"]["sourceAccount"] == ABROAD_ACCOUNT


async def test_accounts_and_keys(server: Server, run: Any) -> None:
    assert [line.split()[0] for line in (await run("account", "list")).splitlines() if "eastus2" in line] == [
        "bank",
        "vivavoce",
    ]
    made = await run("account", "create", "fresh", "--location", "eastus2", "--resource-group", "empty", "--json")
    assert json.loads(made)["id"].startswith(f"{SUB}/resourceGroups/empty/")
    assert "fresh" in await run("account", "show", "fresh")
    old = json.loads(await run("key", "list", "--account", "fresh", "--json"))
    new = json.loads(await run("key", "rotate", "key1", "--account", "fresh", "--json"))
    assert (new["key1"] == old["key1"], new["key2"] == old["key2"]) == (False, True)
    assert BANK_KEY in await run("key", "list", "--account", "bank")
    assert (await run("key", "rotate", "key1", "--account", "bank", code=1)).startswith(
        "vivavoce: ReadOnlyResource: "
    )
    assert "deleted" in await run("account", "delete", "fresh")
    assert "there is no account 'fresh'" in await run("account", "show", "fresh", code=1)
    assert "--account: name one of bank, vivavoce" in await run("key", "list", code=2)


async def test_roles(server: Server, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("role", "assign", "cognitive services openai user", STRANGER, "--account", "bank")
    made = json.loads(await run(*words, "--json"))
    assert made["properties"]["principalType"] == "ServicePrincipal"
    assert "RoleAssignmentExists" in await run(*words, code=1)
    listed = await run("role", "list", "--account", "bank", "--principal", STRANGER)
    assert "Cognitive Services OpenAI User" in listed
    assert CONTRIBUTOR not in listed
    assert "there is no role 'king'" in await run("role", "assign", "king", STRANGER, "--scope", SUB, code=2)
    assert "deleted" in await run("role", "delete", made["name"], "--scope", BANK)
    assert "RoleAssignmentNotFound" in await run("role", "delete", made["id"], code=1)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--url", "ftp://x"), 2, "--url: 'ftp://x' is no http:// or https:// URL"),
        (("--url", "http://127.0.0.1:9"), 1, "http://127.0.0.1:9 cannot be reached: "),
        (("--token", "two words"), 2, "--token: a token has no spaces"),
        (("--token", "forged"), 1, "InvalidAuthenticationToken: "),
    ],
)
async def test_what_cannot_be_asked(words: tuple[str, ...], code: int, text: str, server: Server, run: Any) -> None:
    assert (await run("account", "list", *words, code=code)).startswith(f"vivavoce: {text}")


async def test_a_token_is_needed(server: Server, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIVAVOCE_TOKEN")
    assert "a token is needed: --token, or VIVAVOCE_TOKEN" in await run("account", "list", code=2)


async def test_tags_have_a_form(server: Server, run: Any) -> None:
    words = ("deployment", "create", "x", "--account", "bank", "--model", MODEL, "--tag", "a")
    assert "--tag: 'a' is not NAME=VALUE" in await run(*words, code=2)
