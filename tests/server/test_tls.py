"""TLS by the server itself: HTTP and WebSocket on one port, and faults that name their file."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import ssl
from pathlib import Path

import msgspec
import pytest
import server_fixtures
from aiohttp import ClientConnectorCertificateError, ClientSession, ServerDisconnectedError
from server_fakes import AZURE, KEY, Fakes, Wire, config, no_sessions, serving
from websockets.asyncio.client import connect

from vivavoce.config import Config, ConfigError, Overrides, load_config
from vivavoce.server.app import assembled
from vivavoce.server.tls import server_context

DATA = Path(__file__).parent / "data"
CERT, KEY_FILE = DATA / "server.cert.pem", DATA / "server.key.pem"

fakes = server_fixtures.fakes


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERT))


@pytest.mark.parametrize(
    "files", [{"tls_cert": str(CERT), "tls_key": str(KEY_FILE)}, {"tls_cert": str(DATA / "both.pem")}]
)
async def test_http_and_websocket_on_one_port(fakes: Fakes, files: dict[str, str]) -> None:
    async with serving(config(**files)) as server, ClientSession() as client:
        base = f"https://localhost:{server.port}"
        async with client.get(f"{base}/healthz", ssl=trusting()) as answer:
            assert answer.status == 200
        async with client.ws_connect(f"{base}{AZURE}", headers={"api-key": KEY}, ssl=trusting()) as socket:
            await Wire(socket).until("conversation.created")
            await Wire(socket).silence()
        url = f"wss://127.0.0.1:{server.port}{AZURE}"
        async with connect(url, additional_headers={"api-key": KEY}, ssl=trusting()) as other:
            assert json.loads(await other.recv())["type"] == "session.created"
        await no_sessions(server)
        with pytest.raises(ClientConnectorCertificateError):
            await client.get(f"{base}/healthz")
        with pytest.raises(ServerDisconnectedError):
            await client.get(f"http://localhost:{server.port}/healthz")


async def test_a_worker_speaks_it_to_connections_that_it_is_handed(fakes: Fakes) -> None:
    loop = asyncio.get_running_loop()
    with sockets.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with assembled(config(tls_cert=str(DATA / "both.pem"))) as assembly, ClientSession() as client:
            url = f"https://localhost:{listener.getsockname()[1]}/healthz"
            asking = asyncio.create_task(client.get(url, ssl=trusting()).__aenter__())
            connection, _ = await loop.sock_accept(listener)
            await assembly.adopt(connection)
            answer = await asking
            assert answer.status == 200
            answer.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions(fakes: Fakes, version: ssl.TLSVersion) -> None:
    context = trusting()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with serving(config(tls_cert=str(CERT), tls_key=str(KEY_FILE))) as server:
        _, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
        assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()
        await writer.wait_closed()


def test_nothing_older_than_tls_1_2() -> None:
    context = server_context(config(tls_cert=str(DATA / "both.pem")).server)
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


# ------------------------------------------------------------------------------------------- the configuration


def load(text: str, tmp_path: Path, overrides: Overrides | None = None) -> Config:
    for name in DATA.glob("*.pem"):
        (tmp_path / name.name).write_bytes(name.read_bytes())
    (tmp_path / "no.pem").write_text("nothing")
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    file = tmp_path / "vivavoce.toml"
    file.write_text(text)
    return load_config(file, environ={}, overrides=overrides)


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    loaded = load('[server]\ntls_cert = "server.cert.pem"\ntls_key = "server.key.pem"\n', tmp_path)
    assert loaded.server.tls_cert == str(tmp_path / "server.cert.pem")
    assert server_context(loaded.server) is not None


def test_the_command_line_replaces_both(tmp_path: Path) -> None:
    text = '[server]\ntls_cert = "server.cert.pem"\ntls_key = "server.key.pem"\n'
    loaded = load(text, tmp_path, Overrides(tls_cert=DATA / "both.pem"))
    assert (loaded.server.tls_cert, loaded.server.tls_key) == (str(DATA / "both.pem"), None)
    assert server_context(loaded.server) is not None


FAULTS = {
    ("server.cert.pem", None): ("server.tls_cert", "server.cert.pem holds no PEM block 'PRIVATE KEY'"),
    ("gone.pem", "server.key.pem"): ("server.tls_cert", "gone.pem cannot be read: No such file or directory"),
    ("server.cert.pem", "gone.pem"): ("server.tls_key", "gone.pem cannot be read: No such file or directory"),
    ("no.pem", "server.key.pem"): ("server.tls_cert", "no.pem holds no PEM block 'CERTIFICATE'"),
    ("server.cert.pem", "no.pem"): ("server.tls_key", "no.pem holds no PEM block 'PRIVATE KEY'"),
    (None, "server.key.pem"): ("server.tls_key", "a key needs its certificate, server.tls_cert"),
    ("server.cert.pem", "other.key.pem"): ("TLS", "is not the one of the certificate in"),
    ("server.cert.pem", "locked.key.pem"): ("TLS", "has a password; write it without one: openssl pkey -in"),
    ("broken.pem", "server.key.pem"): ("TLS", "cannot be used"),
}


@pytest.mark.parametrize("files", FAULTS)
def test_faults_name_their_file(tmp_path: Path, files: tuple[str | None, str | None]) -> None:
    lines = [f'{name} = "{file}"' for name, file in zip(("tls_cert", "tls_key"), files, strict=True) if file]
    with pytest.raises(ConfigError) as fault:
        server_context(load("\n".join(["[server]", *lines]), tmp_path).server)
    path, problem = FAULTS[files]
    assert fault.value.path == path
    assert problem in fault.value.problem
    if path == "TLS":
        assert all(str(tmp_path / str(file)) in fault.value.problem for file in files[1:])


def test_faults_of_the_command_line_name_the_option(tmp_path: Path) -> None:
    for overrides, path in (
        (Overrides(tls_cert=tmp_path / "gone.pem"), "--tls-cert"),
        (Overrides(tls_key=KEY_FILE), "--tls-key"),
        (Overrides(tls_cert=CERT, tls_key=tmp_path / "gone.pem"), "--tls-key"),
    ):
        with pytest.raises(ConfigError) as fault:
            load("", tmp_path, overrides)
        assert fault.value.path == path


def test_without_a_certificate_there_is_no_tls() -> None:
    assert server_context(msgspec.structs.replace(config().server)) is None
