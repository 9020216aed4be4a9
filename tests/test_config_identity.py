"""``[identity]``, ``[entra]``, ``[[issuer]]``, ``[development_issuer]``, ``[[role_assignment]]``."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from vivavoce.config import Config, ConfigError, load_config
from vivavoce.config.development_keys import development_keys, replace_development_keys
from vivavoce.config.identity import (
    DATA_AUDIENCES,
    MANAGEMENT_AUDIENCES,
    EntraSettings,
    Identity,
    IssuerSettings,
    is_trustworthy,
)
from vivavoce.gateway.store.declared import Declared

ACCOUNT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a"


def load(text: str, folder: Path) -> Config:
    file = folder / "vivavoce.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, environ={})


def test_without_a_word_keys_alone_open(tmp_path: Path) -> None:
    assert load("", tmp_path).identity == Identity()
    assert Identity().entra is None
    assert not Identity().development.enabled


def test_entra(tmp_path: Path) -> None:
    entra = load(
        '[entra]\ntenants = ["T"]\nauthority = "https://login.microsoftonline.us/"', tmp_path
    ).identity.entra
    assert entra == EntraSettings(
        tenants=("t",),
        authority="https://login.microsoftonline.us",
        audience=DATA_AUDIENCES,
        management_audience=MANAGEMENT_AUDIENCES,
    )
    assert Identity(entra=entra).takes_tokens


def test_the_tenants_of_the_accounts_count_unless_others_are_named(tmp_path: Path) -> None:
    text = '[entra]\n[resource]\ntenant = "B"\n[[account]]\nname = "x"\ntenant = "a"\n[[account]]\nname = "y"'
    assert load(text, tmp_path).identity.entra == EntraSettings(tenants=("a", "b"))
    named = load(text.replace("[entra]", '[entra]\ntenants = ["c"]'), tmp_path).identity.entra
    assert named == EntraSettings(tenants=("c",))


def test_issuers(tmp_path: Path) -> None:
    text = '[[issuer]]\nname = "idp"\nissuer = "https://idp.example"\naudience = ["voice"]\nalgorithms = ["ES256"]'
    assert load(text, tmp_path).identity.issuers == (
        IssuerSettings(name="idp", issuer="https://idp.example", audience=("voice",), algorithms=("ES256",)),
    )


IDP = '[[issuer]]\nname = "idp"\nissuer = "https://idp.example"\naudience = ["voice"]\n'
FAULTS = {
    "[entra]": "entra.tenants: name one: no account that is declared has a tenant",
    "[identity]\nfailures = -1": "identity.failures: ",
    '[identity]\ntrusted_proxies = ["10.0.0.0/8", "proxy"]': "identity.trusted_proxies[1]: ",
    "[identity]\nskew = 1": "identity.skew: unknown option",
    '[entra]\nauthority = "http://login.example"': "entra.authority: ",
    '[entra]\nauthority = "login.example"': "entra.authority: ",
    '[entra]\ntenants = ["a/b"]': "entra.tenants[0]: ",
    '[[issuer]]\nname = "idp"': "issuer[0].issuer: is required",
    IDP.replace('"idp"', '"IdP"'): "issuer[0].name: ",
    IDP.replace('"idp"', '"entra"'): "issuer[0].name: ",
    IDP.replace("https://idp.example", "http://idp.example"): "issuer[0].issuer: ",
    IDP.replace('"voice"', ""): "issuer[0].audience: name at least one",
    IDP + 'jwks_uri = "ftp://idp.example/keys"': "issuer[0].jwks_uri: ",
    IDP + "algorithms = []": "issuer[0].algorithms: name at least one",
    IDP + 'algorithms = ["HS256"]': "issuer[0].algorithms[0]: ",
    IDP + 'algorithms = ["none"]': "issuer[0].algorithms[0]: ",
    IDP + IDP: "issuer[1]: its name or issuer is already another's",
    IDP + IDP.replace('"idp"', '"other"'): "issuer[1]: its name or issuer is already another's",
    "[issuer]": "issuer: expected an array of tables",
    '[development_issuer]\nurl = "localhost"': "development_issuer.url: ",
    '[[role_assignment]]\nrole = "Owner"': "role_assignment[0].principal_id: is required",
    '[[role_assignment]]\nrole = "Owner"\nprincipal_id = "p"\nprincipal_type = "Robot"': (
        "role_assignment[0].principal_type: 'Robot' is not one of User, Group, ServicePrincipal"
    ),
    f'[[role_assignment]]\nrole = "Owner"\nprincipal_id = "p"\nscope = "{ACCOUNT}/keys/1"': (
        "role_assignment[0].scope: "
    ),
}


@pytest.mark.parametrize("text", FAULTS)
def test_faults_name_their_place(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        load(text, tmp_path)
    assert str(fault.value).startswith(FAULTS[text])


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://idp.example/x", True),
        ("http://127.0.0.1:8080/x", True),
        ("http://[::1]/x", True),
        ("http://localhost/x", True),
        ("http://localhost.example/x", False),
        ("http://10.0.0.1/x", False),
        ("https://", False),
        ("http://[::1", False),
        ("file:///etc/passwd", False),
    ],
)
def test_which_urls_keys_may_come_from(url: str, trusted: bool) -> None:
    assert is_trustworthy(url) is trusted


# ---------------------------------------------------------------------------------------------- role assignments


def test_role_assignments_are_declared(tmp_path: Path) -> None:
    text = f"""
        [[role_assignment]]
        role = "cognitive services openai user"
        principal_id = "p"

        [[role_assignment]]
        role = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
        principal_id = "q"
        principal_type = "Group"
        scope = "{ACCOUNT}/"
    """
    config = load(text, tmp_path)
    first, second = Declared(config).directory().assignments
    own = Declared(config).accounts[0].id
    assert (first.role, first.scope, first.principal_type) == ("Cognitive Services OpenAI User", own, "User")
    assert (second.role, second.scope, second.principal_type) == ("Owner", ACCOUNT, "Group")
    assert first.declared
    assert first.id.startswith(f"{own}/providers/Microsoft.Authorization/roleAssignments/")
    again = Declared(config).directory().assignments
    assert [one.id for one in again] == [first.id, second.id]


def test_a_role_that_there_is_not(tmp_path: Path) -> None:
    config = load('[[role_assignment]]\nrole = "Boss"\nprincipal_id = "p"', tmp_path)
    with pytest.raises(ConfigError, match=r"^role_assignment\[0\]\.role: 'Boss' is no role \(there are: Cog"):
        Declared(config)


# ---------------------------------------------------------------------------------- keys of the development issuer


def test_keys_are_made_once_and_readable_by_their_user_alone(tmp_path: Path) -> None:
    assert development_keys(tmp_path, lambda: b"first") == b"first"
    assert development_keys(tmp_path, lambda: b"second") == b"first"
    [file] = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    replace_development_keys(tmp_path, b"third")
    assert development_keys(tmp_path, lambda: b"fourth") == b"third"
    assert [stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()] == [0o600]


def test_of_two_that_make_keys_at_once_one_wins(tmp_path: Path) -> None:
    def make() -> bytes:
        development_keys(tmp_path, lambda: b"faster")
        return b"slower"

    assert development_keys(tmp_path, make) == b"faster"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"development_issuer: .* cannot be used"):
        development_keys(tmp_path / "missing", lambda: b"x")
    with pytest.raises(ConfigError, match=r"development_issuer: .* cannot be used"):
        replace_development_keys(tmp_path / "missing", b"x")
