"""``vivavoce token``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jwt
import pytest

from vivavoce.cli import main
from vivavoce.gateway.development_issuer import MAX_KEYS, issuer_name, public_keys, tenant_of, with_new_key

OID = "AAAAAAAA-0000-0000-0000-000000000001"
GROUP = "aaaaaaaa-0000-0000-0000-00000000000f"
URL = "http://localhost:8089"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "vivavoce.toml"
    file.write_text('[server]\ndata = "data"\n[resource]\ntenant = "T-1"\n[development_issuer]\nenabled = true\n')
    return file


def printed(config: Path, capsys: pytest.CaptureFixture[str], options: Sequence[str] = ()) -> str:
    assert main(["token", "--config", str(config), "--oid", OID, *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return out.strip()


def verified(config: Path, token: str, audience: str = "https://cognitiveservices.azure.com") -> dict[str, object]:
    keys = jwt.PyJWKSet(public_keys((config.parent / "data/development-issuer.json").read_bytes()))
    claims: dict[str, object] = jwt.decode(
        token, keys[jwt.get_unverified_header(token)["kid"]], ["RS256"], audience=audience
    )
    return claims


def test_a_token(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claims = verified(config, printed(config, capsys))
    assert claims["iss"] == issuer_name(URL, "t-1")
    assert (claims["tid"], claims["oid"], claims["idtyp"]) == ("t-1", OID.lower(), "user")
    assert isinstance(claims["exp"], int)
    assert isinstance(claims["iat"], int)
    assert claims["exp"] - claims["iat"] == 3600
    assert claims.keys().isdisjoint({"azp", "groups"})


def test_every_option_arrives(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tenant", "t-2", "--appid", "shop", "--app", "--group", GROUP, "--group", OID, "--expires", "60"]
    token = printed(config, capsys, [*options, "--audience", "https://management.azure.com"])
    claims = verified(config, token, "https://management.azure.com")
    assert claims["iss"] == issuer_name(URL, "t-2")
    assert (claims["azp"], claims["idtyp"], claims["groups"]) == ("shop", "app", [GROUP, OID.lower()])
    assert isinstance(claims["exp"], int)
    assert isinstance(claims["iat"], int)
    assert claims["exp"] - claims["iat"] == 60


def test_a_new_key_signs_and_the_old_one_still_verifies(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = printed(config, capsys)
    new = printed(config, capsys, ["--new-key"])
    kids = [jwt.get_unverified_header(token)["kid"] for token in (old, new, printed(config, capsys))]
    assert kids[0] != kids[1] == kids[2]
    for token in (old, new):
        verified(config, token)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--oid", "alice"], "--oid: 'alice' is no GUID"),
        (["--oid", OID, "--group", "x"], "--group: 'x' is no GUID"),
        (["--oid", OID, "--tenant", "a/b"], "--tenant: 'a/b' is no id of a tenant"),
        (["--oid", OID, "--expires", "0"], "Invalid value for '--expires'"),
        ([], "Missing option '--oid'"),
    ],
)
def test_wrong_options(config: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str) -> None:
    assert main(["token", "--config", str(config), *options]) == 2
    assert problem in capsys.readouterr().err


def test_it_is_off_unless_it_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "vivavoce.toml"
    file.write_text('[server]\ndata = "data"\n')
    assert main(["token", "--config", str(file), "--oid", OID]) == 2
    assert "development_issuer.enabled: it is off" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_keys_of_somebody_else(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(config, capsys)
    (config.parent / "data/development-issuer.json").write_text("[]")
    for options in ([], ["--new-key"]):
        assert main(["token", "--config", str(config), "--oid", OID, *options]) == 2
        assert "these are no keys of a development issuer" in capsys.readouterr().err


WITHOUT_THE_EXTRA = """
import sys
sys.modules["jwt"] = None
from vivavoce.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["token --oid aaaaaaaa-0000-0000-0000-000000000001", "serve --port 0"])
def test_without_the_extra_its_name_is_told(config: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, *command.split(), "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()[-1].partition(": ")[0]) == (2, "vivavoce")
    assert "the extra: pip install 'vivavoce[resource]'" in done.stderr


# ------------------------------------------------------------------------------------------------- what it makes


def test_so_many_keys_are_kept() -> None:
    content = with_new_key()
    first = public_keys(content)[0]["kid"]
    for _ in range(MAX_KEYS - 1):
        content = with_new_key(content)
    assert public_keys(content)[-1]["kid"] == first
    kids = [key["kid"] for key in public_keys(with_new_key(content))]
    assert len(kids) == MAX_KEYS
    assert first not in kids


@pytest.mark.parametrize(
    ("issuer", "tenant"),
    [
        (issuer_name(URL, "t-1"), "t-1"),
        (issuer_name("http://other", "t-1"), None),
        (issuer_name(URL, "a/b"), None),
        (issuer_name(URL, ""), None),
        (f"{issuer_name(URL, 't-1')}/", None),
        (f"{URL}/development-issuer/v2.0", None),
        ("", None),
    ],
)
def test_whose_issuer_it_is(issuer: str, tenant: str | None) -> None:
    assert tenant_of(URL, issuer) == tenant
