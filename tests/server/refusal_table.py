"""Every way to be refused when a session is asked for, on every path: what a real server answers, and its page,
docs/reference/refusals.md."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

import msgspec
from aiohttp import ClientSession, WSMsgType
from dev_tokens import GROUP, STRANGER, TENANT, dev_token, token_of_an_unreachable_issuer, with_tokens
from server_fakes import KEY, NAME, Fakes, Wire, config, serving

from vivavoce.config import AccountSettings, Secret
from vivavoce.engines.registry import Registry
from vivavoce.server.app import Server

REFUSALS_PAGE: Final = Path(__file__).parent.parent.parent / "docs/reference/refusals.md"

PATHS: Final = ("/openai/realtime", "/openai/v1/realtime", "/v1/realtime")
PREVIEW, GA, OPENAI = PATHS
_DEPLOYMENT_IN: Final = {PREVIEW: "deployment", GA: "model", OPENAI: "model"}
OTHERS_KEY: Final = "the-key-of-another-account"

Pairs = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """Instead of a session."""

    status: int
    """HTTP status, or close code."""
    code: str | None
    message: str
    headers: Pairs = field(default_factory=dict)
    """Of the answer, those that tell when to try again."""

    @property
    def after_upgrade(self) -> bool:
        return self.status >= 1000

    def __str__(self) -> str:
        code = "null" if self.code is None else f"`{self.code}`"
        return f"close {self.status}, {code}" if self.after_upgrade else f"{self.status} {code}"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to be refused, in the order in which the server looks. None of ``query`` takes a parameter away."""

    text: str
    query: Mapping[str, str | None] = field(default_factory=dict)
    headers: Pairs = field(default_factory=dict)
    key: str | None = KEY
    token: str | None = None
    """Instead of the key."""
    host: str | None = None
    upgrade: bool = True
    guesses: int = 0
    """Wrong keys before."""
    busy: bool = False
    paths: tuple[str, ...] = PATHS


def ways() -> list[Way]:
    """The tokens are made now."""
    return [
        Way("not a WebSocket upgrade", upgrade=False),
        Way("more than 10 custom headers", headers={f"h{n}": "1" for n in range(11)}, paths=(PREVIEW, GA)),
        Way("too many wrong keys and tokens from this address", guesses=2),
        Way("no key and no token", key=None),
        Way("a wrong key", key="the-wrong-key-of-some-length"),
        Way("a key of another account than the Host header names", key=OTHERS_KEY, host="first.openai.azure.com"),
        Way("a token that is not signed by its issuer", token=dev_token()[:-8] + "AAAAAAAA"),
        Way("a token of an issuer that is not configured", token=dev_token(url="https://other.example")),
        Way("a token for another audience", token=dev_token(audience="https://graph.microsoft.com")),
        Way("a token that has expired", token=dev_token(expires_s=-3600)),
        Way("a token whose issuer cannot be reached", token=token_of_an_unreachable_issuer()),
        Way("a token of another tenant than the account's", token=dev_token(tenant=GROUP)),
        Way("a token whose holder has no role for the deployment", token=dev_token(STRANGER)),
        Way("a token whose holder has no role, and no such deployment", {"D": "other"}, token=dev_token(STRANGER)),
        Way("joining a call (`call_id`)", {"call_id": "rtc_1"}, paths=(GA, OPENAI)),
        Way("no `api-version`", {"api-version": None}, paths=(PREVIEW,)),
        Way("an unknown `api-version`", {"api-version": "2023-05-15"}, paths=(PREVIEW,)),
        Way("no deployment or model named", {"D": None}),
        Way("an unknown deployment or model", {"D": "other"}),
        Way("a transcription session of the first preview", {"intent": "transcription"}, paths=(PREVIEW,)),
        Way("as many sessions as there may be", busy=True),
    ]


@asynccontextmanager
async def _server(folder: Path, **identity: Any) -> AsyncIterator[Server]:
    settings = with_tokens(folder, config(max_sessions=1), **identity)
    first = msgspec.structs.replace(settings.resource, name="first")
    other = AccountSettings(
        name="other",
        subscription="s",
        resource_group="g",
        location="eastus2",
        tenant=TENANT,
        keys=(Secret(OTHERS_KEY),),
    )
    with mock.patch.object(Registry, "installed", Fakes):
        async with serving(msgspec.structs.replace(settings, resource=first, more_accounts=(other,))) as server:
            yield server


def measured() -> dict[tuple[str, str], Answer]:
    """By the text of the way, and the path."""

    async def measure() -> dict[tuple[str, str], Answer]:
        answers = {}
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = await stack.enter_async_context(_server(folder, failures=0))
            for way in ways():
                for path in way.paths:
                    if way.guesses:
                        # Whoever guesses is told by a server of its own, where time does not pass.
                        frozen = mock.Mock(monotonic=lambda: 0.0)
                        with mock.patch("vivavoce.server.identity.time", frozen):
                            async with _server(folder, failures=way.guesses) as guarded:
                                answers[way.text, path] = await _answer(guarded, way, path)
                    else:
                        answers[way.text, path] = await _answer(server, way, path)
        return answers

    return asyncio.run(measure())


async def _answer(server: Server, way: Way, path: str) -> Answer:
    query = {"api-version": "2024-10-01-preview"} if path == PREVIEW else {}
    query |= {_DEPLOYMENT_IN[path]: NAME}
    for name, value in way.query.items():
        query.pop(name if name != "D" else _DEPLOYMENT_IN[path], None)
        if value is not None:
            query[name if name != "D" else _DEPLOYMENT_IN[path]] = value
    headers = dict(way.headers)
    if way.token is not None:
        headers["Authorization"] = f"Bearer {way.token}"
    elif way.key is not None:
        headers["api-key"] = way.key
    if way.host is not None:
        headers["Host"] = way.host
    base = f"http://127.0.0.1:{server.port}{path}"
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ClientSession())
        if way.busy:
            url = f"http://127.0.0.1:{server.port}{PREVIEW}?api-version=2024-10-01-preview&deployment={NAME}"
            wire = Wire(await stack.enter_async_context(client.ws_connect(url, headers={"api-key": KEY})))
            await wire.until("conversation.created")
        for _ in range(way.guesses):
            async with client.get(base, params=query, headers=_UPGRADE | {"api-key": "guess"}):
                pass
        if path == OPENAI and way.upgrade:
            socket = await stack.enter_async_context(client.ws_connect(base, params=query, headers=headers))
            error = (await Wire(socket).next())["error"]
            closed = await socket.receive()
            assert closed.type is WSMsgType.CLOSE
            assert closed.extra == ".".join(filter(None, (error["type"], error["code"])))
            return Answer(closed.data, error["code"], error["message"])
        answer = await stack.enter_async_context(
            client.get(base, params=query, headers=headers | (_UPGRADE if way.upgrade else {}))
        )
        error = (await answer.json())["error"]
        retry = {name: answer.headers[name] for name in _RETRY if name in answer.headers}
        return Answer(answer.status, error["code"], error["message"], retry)


_RETRY: Final = ("retry-after", "retry-after-ms")
_UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

# ---------------------------------------------------------------------------------------------------- the page


def page(answers: Mapping[tuple[str, str], Answer]) -> str:
    lines = [_HEAD, f"| why | {' | '.join(f'`{path}`' for path in PATHS)} |", f"|---|{'---|' * len(PATHS)}"]
    lines += [f"| {way.text} | {' | '.join(_cell(answers, way, path) for path in PATHS)} |" for way in ways()]
    lines.append(_MESSAGES)
    lines += ["| answer | message |", "|---|---|"]
    told: dict[tuple[str, str], None] = {}
    for answer in answers.values():
        told.setdefault((f"{answer}{_retry(answer)}", answer.message.replace("<", "&lt;")))
    lines += [f"| {answer} | {message} |" for answer, message in told]
    return "\n".join(lines) + "\n"


def _cell(answers: Mapping[tuple[str, str], Answer], way: Way, path: str) -> str:
    return str(answers[way.text, path]) if path in way.paths else "-"


def _retry(answer: Answer) -> str:
    return "".join(f"<br>`{name}: {value}`" for name, value in answer.headers.items())


_HEAD: Final = """\
# Refusals

<!-- Made by scripts/compatibility.py --write of what a server answers in tests/server/test_refusals.py. -->

Every way to ask for a session and get none, in the order in which the server looks: the first that applies is told.
On `/openai/realtime` and `/openai/v1/realtime` the answer comes instead of the upgrade, as JSON:
`{"error": {"code", "message"}}`. On `/v1/realtime` the WebSocket opens, one `error` event tells the same, with type
`invalid_request_error`, and a close frame follows, whose reason is `invalid_request_error.CODE`. A dash: it is none
there.

A path that there is not is answered with 404 `404`.
"""
_MESSAGES: Final = """
## What is said

Ids, keys and numbers are those of the example.
"""
