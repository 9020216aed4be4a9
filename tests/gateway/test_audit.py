from __future__ import annotations

import json
import logging
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.config import AuditSettings, ConfigError, Secret
from vivavoce.gateway.audit import (
    ANONYMOUS,
    MAX_TEXT_CHARS,
    SERVER,
    Actor,
    Audit,
    Caller,
    Details,
    clean_text,
    open_audit,
)

AT = 1739433600.25
WRITE = "Microsoft.CognitiveServices/accounts/deployments/write"
TARGET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments/d"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJvaWQiOiJ4In0.c2lnbmF0dXJl"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def written(**arguments: Any) -> dict[str, Any]:
    lines: list[str] = []
    Audit(lines.append, lambda: AT).record(
        arguments.pop("actor", SERVER), WRITE, arguments.pop("target", TARGET), "done", **arguments
    )
    (line,) = lines
    assert "\n" not in line
    assert line.isascii()
    record: dict[str, Any] = json.loads(line)
    return record


def test_a_record_says_who_did_what_when_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with open_audit(AuditSettings(path=str(path)), lambda: AT) as audit:
        audit.record(
            Actor(kind="entra", id="oid:7", tenant="t", oid="7", appid="app"),
            WRITE,
            TARGET,
            "done",
            Details(sku="Standard", capacity=10),
            Caller(request_id="r", client_request_id="c", address="10.0.0.1"),
        )
        audit.record(ANONYMOUS, WRITE, TARGET, "refused", Details(status=401))
    assert read(path) == [
        {
            "time": "2025-02-13T08:00:00.250Z",
            "action": WRITE,
            "target": TARGET,
            "outcome": "done",
            "actor": {"kind": "entra", "id": "oid:7", "tenant": "t", "oid": "7", "appid": "app"},
            "details": {"sku": "Standard", "capacity": 10},
            "request_id": "r",
            "client_request_id": "c",
            "address": "10.0.0.1",
        },
        {
            "time": "2025-02-13T08:00:00.250Z",
            "action": WRITE,
            "target": TARGET,
            "outcome": "refused",
            "actor": {"kind": "anonymous"},
            "details": {"status": 401},
        },
    ]


def test_the_file_is_appended_to_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        with open_audit(AuditSettings(path=str(path))) as audit:
            audit.record(SERVER, WRITE, TARGET, "done")
    assert len(read(path)) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    with open_audit(AuditSettings(path=str(path))) as audit:
        audit.record(SERVER, WRITE, "first", "done")
        path.rename(old)
        audit.record(SERVER, WRITE, "second", "done")
    assert [one["target"] for one in read(old)] == ["first"]
    assert [one["target"] for one in read(path)] == ["second"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_cannot_be_written_is_told_and_the_audit_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    path = folder / "audit.jsonl"
    with open_audit(AuditSettings(path=str(path))) as audit:
        path.unlink()
        folder.rmdir()
        audit.record(SERVER, WRITE, "lost", "done")
        (told,) = caplog.records
        assert (told.levelno, told.name) == (logging.ERROR, "vivavoce.gateway.audit")
        assert "FileNotFoundError" in told.getMessage()
        assert '"target":"lost"' in told.getMessage()
        folder.mkdir()
        audit.record(SERVER, WRITE, "kept", "done")
    assert [one["target"] for one in read(path)] == ["kept"]


def test_without_a_file_it_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with open_audit(AuditSettings(), lambda: AT) as audit:
        audit.record(SERVER, WRITE, "50 % of %s", "done")
    (told,) = caplog.records
    assert told.name == "vivavoce.audit"
    assert json.loads(told.getMessage())["target"] == "50 % of %s"


def test_a_file_that_cannot_be_opened_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"audit\.path: .*none.* cannot be written"),
        open_audit(AuditSettings(path=str(tmp_path / "none" / "audit.jsonl"))),
    ):
        pytest.fail("it was opened")


def test_a_secret_is_no_text() -> None:
    with pytest.raises(TypeError, match="Secret"):
        written(details=Details(reason=Secret("s3cret")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pasted", "shown"),
    [
        (JWT, "***"),
        (JWT[:30], "***"),
        (f"x-{JWT}-y", "x-***"),
        ("ek_67f0aabbccddeeff", "***"),
        ("sk-proj-abcdefghijkl", "***"),
        ("Bearer abc.def", "***"),
        ("postgresql://joe:s3cret@host/db", "postgresql://***host/db"),
        ("a\nb\x1b[2Jc\u2028é", "a?b?[2Jc??"),
        ("eye_of_the-storm", "eye_of_the-storm"),
        ("desk_lamp", "desk_lamp"),
        (TARGET, TARGET),
    ],
)
def test_what_looks_like_a_secret_is_hidden_wherever_it_is(pasted: str, shown: str) -> None:
    record = written(
        actor=Actor(kind="oidc", id=pasted, oid=pasted),
        target=pasted,
        details=Details(model=pasted),
        caller=Caller(request_id="r", client_request_id=pasted),
    )
    assert record["target"] == record["actor"]["id"] == record["actor"]["oid"] == shown
    assert record["details"]["model"] == record["client_request_id"] == shown


@given(st.text(max_size=600), st.integers(0, 600))
def test_texts_are_bounded_and_no_piece_of_a_token_is_left(before: str, length: int) -> None:
    cut = clean_text(before + JWT + "x" * length)
    assert len(cut) <= MAX_TEXT_CHARS
    assert cut.isascii()
    assert cut.isprintable()
    assert "c2lnbmF0" not in cut
