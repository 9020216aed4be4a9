from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vivavoce import cli
from vivavoce.config import API_KEY_VARIABLE, Config, ConfigError, Secret
from vivavoce.demo.run import DemoOptions, Serve
from vivavoce.engines.measure import Figures, Material
from vivavoce.engines.registry import Engine, EngineError, Registry
from vivavoce.gateway.deployments import EngineStartError

SILERO = EntryPoint("silero", "vivavoce.engines.builtin.silero_vad:create", "vivavoce.vad")
TURN_HINTS = EntryPoint("turn_hints", "vivavoce.engines.builtin.turn_hints:create", "vivavoce.end_of_turn")
SCRIPTED = EntryPoint("scripted", "vivavoce.engines.builtin.scripted:create", "vivavoce.language_model")
BROKEN = EntryPoint("broken", "no_such_module_here:create", "vivavoce.synthesizer")


@dataclass
class FakeServer:
    """Stands for ``vivavoce.server.app``: what it was asked for, and what it does."""

    port: int = 4711
    code: int = 0
    fault: Exception | None = None
    configs: list[Config] = field(default_factory=list)
    bound: list[tuple[str, int]] = field(default_factory=list)

    @property
    def config(self) -> Config:
        return self.configs[-1]

    async def serve(self, config: Config, *, on_ready: Callable[[Any], None]) -> int:
        self.configs.append(config)
        if self.fault is not None:
            raise self.fault
        on_ready(self)
        return self.code

    @asynccontextmanager
    async def running(self, config: Config, *, host: str, port: int) -> AsyncIterator[FakeServer]:
        self.configs.append(config)
        self.bound.append((host, port))
        if self.fault is not None:
            raise self.fault
        yield self


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key from outside, and the logging of the test run comes back."""
    monkeypatch.delenv("VIVAVOCE_API_KEY", raising=False)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    # ``force`` closes the handlers that it finds, and pytest still needs its own.
    root.handlers = []
    yield
    root.handlers = before
    root.setLevel(level)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    module = ModuleType("vivavoce.server.app")
    vars(module).update(serve=fake.serve, running=fake.running)
    monkeypatch.setitem(sys.modules, "vivavoce.server.app", module)
    monkeypatch.setattr("vivavoce.server.app", module, raising=False)
    return fake


@dataclass
class FakeDemo:
    code: int = 0
    fault: BaseException | None = None
    options: list[DemoOptions] = field(default_factory=list)
    endpoints: list[tuple[str, str]] = field(default_factory=list)

    async def run_demo(self, options: DemoOptions, *, serve: Serve, console: object) -> int:
        self.options.append(options)
        if self.fault is not None:
            raise self.fault
        if options.url is None:
            async with serve() as endpoint:
                self.endpoints.append((endpoint.url, endpoint.api_key))
        return self.code


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> FakeDemo:
    fake = FakeDemo()
    monkeypatch.setattr("vivavoce.demo.run.run_demo", fake.run_demo)
    return fake


def write(folder: Path, text: str) -> str:
    file = folder / "c.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


# ------------------------------------------------------------------------------------------------------- basics


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"vivavoce {version('vivavoce')}\n"


def test_python_m_is_the_same_and_loads_no_numpy() -> None:
    code = "import sys, runpy; sys.argv = ['vivavoce', '--version']\n"
    code += "try: runpy.run_module('vivavoce', run_name='__main__')\n"
    code += "except SystemExit as end: print(end.code, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"vivavoce {version('vivavoce')}\n0 False\n"


def test_numeric_libraries_get_one_thread_unless_the_user_says_otherwise() -> None:
    code = "import vivavoce.cli, os; print(os.environ['OPENBLAS_NUM_THREADS'], os.environ['OMP_NUM_THREADS'])"
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    plain = {name: value for name, value in os.environ.items() if name not in names}
    for extra, shown in (({}, "1 1"), ({"OMP_NUM_THREADS": "3"}, "1 3")):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain | extra
        )
        assert done.stdout.strip() == shown


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    shown = capsys.readouterr()
    assert "check-config" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["serv"],
        ["serve", "--prt", "1"],
        ["serve", "--port", "x"],
        ["serve", "--port", "65536"],
        ["serve", "--log-level", "loud"],
        ["serve", "--api-key", "a b"],
        ["serve", "--config", "/no/such/file.toml"],
        ["check-config"],
        ["check-config", "/no/such/file.toml"],
        ["demo", "--url", "ws://h", "--config", "c.toml"],
        ["demo", "--api-key", "k"],
        ["demo", "--timeout", "soon"],
        ["engines", "x"],
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(
    arguments: list[str], server: FakeServer, demo: FakeDemo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("vivavoce: ")
    assert shown.err.count("\n") == 1
    assert server.configs == []
    assert demo.options == []


# -------------------------------------------------------------------------------------------------------- serve


def test_serve_says_where_it_is_in_one_line(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--api-key", "k1", "--api-key", "k2", "--port", "0"]) == 0
    assert server.config.resource.keys == (Secret("k1"), Secret("k2"))
    assert server.config.server.port == 0
    base = "ws://127.0.0.1:4711"
    assert capsys.readouterr().out == (
        f"vivavoce is ready: {base}/openai/realtime?api-version=2024-10-01-preview"
        f"&deployment=gpt-4o-realtime-preview (Azure), {base}/v1/realtime?model=gpt-4o-realtime-preview (OpenAI)\n"
    )


@pytest.mark.parametrize(
    ("host", "shown"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("voice.example", "voice.example")],
)
def test_the_shown_url_can_be_connected_to(
    host: str, shown: str, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--api-key", "k", "--host", host]) == 0
    assert f" ws://{shown}:4711/v1/realtime" in capsys.readouterr().out
    assert server.config.server.host == host


def test_a_key_that_was_made_is_shown_once_and_before_the_ready_line(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve"]) == 0
    (key,) = server.config.resource.keys
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"No API key was given, so one was made for this run: {key.reveal()}"
    assert second.startswith("vivavoce is ready: ")
    assert len(key.reveal()) == 43


def test_no_key_is_made_where_tokens_open(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--config", write(tmp_path, "[development_issuer]\nenabled = true")]) == 0
    assert server.config.resource.keys == ()
    assert "key" not in capsys.readouterr().out


def test_a_given_key_is_never_shown(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVAVOCE_API_KEY", "s3cret-env")
    assert cli.main(["serve"]) == 0
    assert cli.main(["serve", "--api-key", "s3cret-cli", "--log-level", "debug"]) == 0
    assert [config.resource.keys for config in server.configs] == [(Secret("s3cret-env"),), (Secret("s3cret-cli"),)]
    shown = capsys.readouterr()
    assert "s3cret" not in shown.out + shown.err


def test_serve_reads_its_file(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "[server]\nport = 9\nhost = 'h'\n[resource]\nkeys = ['k']\n[[deployment]]\nname = 'mine'"
    assert cli.main(["serve", "--config", write(tmp_path, text)]) == 0
    assert server.config.server.port == 9
    assert "ws://h:4711/v1/realtime?model=mine (OpenAI)" in capsys.readouterr().out


def test_the_exit_code_of_serve_is_the_servers(server: FakeServer) -> None:
    server.code = 3
    assert cli.main(["serve"]) == 3


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (EngineStartError("vad 'x' cannot start: boom"), "vivavoce: vad 'x' cannot start: boom\n"),
        (
            OSError(errno.EACCES, "error while attempting to bind on address ('127.0.0.1', 8089): denied"),
            "vivavoce: cannot serve on 127.0.0.1:8089: Permission denied\n",
        ),
        (
            socket.gaierror(-2, "Name or service not known"),
            "vivavoce: cannot serve on 127.0.0.1:8089: Name or service not known\n",
        ),
        (OSError("odd"), "vivavoce: cannot serve on 127.0.0.1:8089: odd\n"),
    ],
)
def test_a_server_that_cannot_start_is_one_line(
    fault: Exception, line: str, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault = fault
    assert cli.main(["serve"]) == 1
    assert capsys.readouterr() == ("", line)


def test_an_interrupt_is_130(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(work: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(["serve"]) == 130


def test_a_bug_is_no_configuration_error(server: FakeServer) -> None:
    server.fault = ZeroDivisionError("bug")
    with pytest.raises(ZeroDivisionError):
        cli.main(["serve"])


def test_the_log_goes_to_stderr_at_the_asked_level(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--api-key", "k", "--log-level", "warning"]) == 0
    logging.getLogger("vivavoce.test").info("quiet")
    logging.getLogger("vivavoce.test").warning("loud")
    assert capsys.readouterr().err.endswith("WARNING vivavoce.test: loud\n")


@pytest.mark.skipif(sys.platform == "win32", reason="workers are forked")
def test_a_reload_changes_the_configuration_but_not_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "vivavoce.toml"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # set by what is a process of its own elsewhere
    seen: list[Config] = []

    async def work(config: Config, *_: object, metrics: Path) -> int:
        assert metrics.name == "metrics"
        seen.append(config)
        return 0

    class FakeSupervisor:
        def __init__(
            self, listener: socket.socket, work: Callable[[Any], int], *, renew: Callable[[], None], **_: object
        ) -> None:
            self.work = work
            self.renew = renew
            listener.close()

        def reload(self, text: str) -> Config:
            file.write_text(text)
            self.renew()
            self.work(None)
            return seen[-1]

        def run(self) -> int:
            now = self.reload('[server]\nworkers = 2\nmax_sessions = 8\n[resource]\nkeys = ["new"]\n')
            assert (now.server.max_sessions, [key.reveal() for key in now.resource.keys]) == (2, ["new"])
            for text, fault in (
                ("[resource]\nkeys = []\n", "resource.keys"),
                ('[server]\ntls_cert = "both.pem"\n[resource]\nkeys = ["new"]\n', "TLS"),
            ):
                with pytest.raises(ConfigError, match=fault):
                    self.reload(text)
                self.work(None)
                assert seen[-1] is now
            now = self.reload("[development_issuer]\nenabled = true\n")
            assert now.resource.keys == ()
            return 0

    (tmp_path / "both.pem").write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    monkeypatch.setattr("vivavoce.server.worker.work", work)
    monkeypatch.setattr("vivavoce.server.supervisor.Supervisor", FakeSupervisor)
    file.write_text('[server]\nport = 0\nworkers = 4\nmax_sessions = 8\n[resource]\nkeys = ["old"]\n')
    assert cli.main(["serve", "--config", str(file)]) == 0


def test_the_loop_is_uvloop_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    async def loop_module() -> int:
        return len(type(asyncio.get_running_loop()).__module__.partition("uvloop")[1])

    uvloop = pytest.importorskip("uvloop")
    assert cli._run(loop_module) == len(uvloop.__name__)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert cli._run(loop_module) == 0


# --------------------------------------------------------------------------------------------------------- demo


def test_demo_starts_its_own_server_on_a_free_loopback_port(server: FakeServer, demo: FakeDemo) -> None:
    assert cli.main(["demo"]) == 0
    assert demo.options == [DemoOptions()]
    assert server.bound == [("127.0.0.1", 0)]
    (key,) = server.config.resource.keys
    assert demo.endpoints == [("ws://127.0.0.1:4711", key.reveal())]


def test_every_option_of_demo_arrives(demo: FakeDemo, server: FakeServer) -> None:
    arguments = (
        "demo --wav q.wav --url ws://h:1 --api-key k --deployment d --output o.wav --voice ash --timeout 2.5 "
        "--instructions i"
    )
    assert cli.main(arguments.split()) == 0
    assert cli.main(["demo", "--text", "hello there", "--url", "ws://h:1"]) == 0
    assert demo.options == [
        DemoOptions(
            wav=Path("q.wav"), url="ws://h:1", api_key="k", deployment="d", output=Path("o.wav"), timeout_s=2.5,
            voice="ash", instructions="i",
        ),
        DemoOptions(text="hello there", url="ws://h:1"),
    ]  # fmt: skip
    assert server.configs == []


def test_demo_takes_the_key_for_a_url_from_the_environment(
    demo: FakeDemo, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVAVOCE_API_KEY", "env")
    assert cli.main(["demo", "--url", "ws://h"]) == 0
    assert cli.main(["demo", "--url", "ws://h", "--api-key", "said"]) == 0
    assert cli.main(["demo"]) == 0
    assert [options.api_key for options in demo.options] == ["env", "said", None]
    assert demo.endpoints == [("ws://127.0.0.1:4711", "env")]


def test_demo_asks_the_first_deployment_of_its_file(demo: FakeDemo, server: FakeServer, tmp_path: Path) -> None:
    file = write(
        tmp_path, "[resource]\nkeys = ['k1', 'k2']\n[[deployment]]\nname = 'a'\n[[deployment]]\nname = 'b'"
    )
    assert cli.main(["demo", "--config", file]) == 0
    assert cli.main(["demo", "--config", file, "--deployment", "b"]) == 0
    assert [options.deployment for options in demo.options] == ["a", "b"]
    assert demo.endpoints == [("ws://127.0.0.1:4711", "k1")] * 2


def test_the_exit_code_of_demo_is_its_verdict(demo: FakeDemo, server: FakeServer) -> None:
    demo.code = 5
    assert cli.main(["demo"]) == 5


def test_a_demo_without_engines_is_one_line(
    demo: FakeDemo, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault = EngineStartError("vad 'x' cannot start: boom")
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr() == ("", "vivavoce: vad 'x' cannot start: boom\n")


# ---------------------------------------------------------------------------------------- check-config, engines


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The built-in VAD and model, and fakes for what would start processes."""
    fakes = tmp_path / "cli_fakes.py"
    fakes.write_text(FAKES, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cli_fakes", raising=False)
    points = [
        SILERO,
        TURN_HINTS,
        SCRIPTED,
        EntryPoint("pocketsphinx", "cli_fakes:hear", "vivavoce.transcriber"),
        EntryPoint("espeak", "cli_fakes:speak", "vivavoce.synthesizer"),
        EntryPoint("picky", "cli_fakes:picky", "vivavoce.vad"),
        BROKEN,
    ]
    monkeypatch.setattr(Registry, "installed", lambda: Registry(points))


FAKES = """
from vivavoce.engines.base import EngineOptionsError, SynthesizerCapabilities, TranscriberCapabilities

class Fake:
    name, version = "fake", "2"
    def __init__(self, capabilities): self.capabilities = capabilities
    async def start(self): raise AssertionError("nothing is started")
    close = transcribe = synthesize = start

def hear(options):
    return Fake(TranscriberCapabilities(16000, True, ("en",)))

def speak(options):
    voices = "alloy ash ballad coral echo sage shimmer verse marin cedar".split()
    return Fake(SynthesizerCapabilities(22050, voices={voice: voice for voice in voices}))

def picky(options):
    raise EngineOptionsError("url", "is required")
"""


@pytest.mark.usefixtures("installed")
def test_check_config_shows_accounts_and_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
    [resource]
    name = "bank"
    [[account]]
    name = "shop"
    keys = ["s3cret-1"]
    [[deployment]]
    name = "voice"
    [[deployment]]
    name = "till"
    account = "shop"
    [store]
    url = "postgresql://ann:s3cret-2@db/voice"
    [recipe.tuned]
    models = ["*.ft-*", "gpt-4o"]
    profile = "azure-2025-04"
    """
    file = write(tmp_path, text)
    assert cli.main(["check-config", file]) == 0
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines()]
    assert [row[:2] for row in rows if "scripted" in row] == [
        ["bank", "voice"],
        ["shop", "till"],
        ["tuned", "*.ft-*,"],
    ]
    assert ["tuned", "*.ft-*,", "gpt-4o", "azure-2025-04", "silero", "pocketsphinx"] in [row[:6] for row in rows]
    assert shown.out.splitlines()[-3:] == [
        f"{file}: store, postgresql+psycopg://ann:***@db/voice",
        f"{file}: account shop, 1 key",
        f"{file}: ok. Resource bank, 127.0.0.1:8089, no keys",
    ]
    assert "s3cret" not in shown.out + shown.err


@pytest.mark.usefixtures("installed")
def test_check_config_tells_units_where_there_is_no_quota(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[[deployment]]\nname = "voice"\nsku = "GlobalProvisionedManaged"\ncapacity = 16'
    assert cli.main(["check-config", write(tmp_path, text)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    head = next(row for row in rows if row[:1] == ["deployment"])
    assert head[-3:] == ["tpm", "rpm", "ptu"]
    assert next(row for row in rows if row[:1] == ["voice"])[-2:] == ["espeak", "16"]


@pytest.mark.usefixtures("installed")
def test_check_config_sums_up_what_would_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
    [resource]
    name = "bank"
    keys = ["s3cret-1", "s3cret-2"]
    [[deployment]]
    name = "voice"
    capacity = 3
    [engine.spare]
    kind = "vad"
    type = "silero"
    """
    file = write(tmp_path, text)
    assert cli.main(["check-config", file]) == 0
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines()]
    assert [
        "voice", "gpt-4o-realtime-preview-2024-12-17", "by", "connection", "silero", "pocketsphinx",
        "turn_hints", "scripted", "espeak", "3000", "18",
    ] in rows  # fmt: skip
    assert shown.out.splitlines()[-1] == f"{file}: ok. Resource bank, 127.0.0.1:8089, 2 keys"
    assert shown.err == f"{file}: engine.spare is used by no deployment\n"
    assert "s3cret" not in shown.out + shown.err


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("keys", "end"), [("[]", "no keys"), ("['k']", "1 key")])
def test_check_config_counts_keys(keys: str, end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", write(tmp_path, f"[resource]\nkeys = {keys}")]) == 0
    assert capsys.readouterr().out.endswith(f", {end}\n")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[servr]", "vivavoce: servr: unknown table; did you mean 'server'?\n"),
        (
            "[[deployment]]\nname = 'a'\n[[deployment]]\nname = 'b'\n[[deployment]]\nname = 'c'\nsynthesizer = 'x'",
            "vivavoce: deployment[2].synthesizer: there is no synthesizer 'x' (there are: broken, espeak)\n",
        ),
        (
            "[[deployment]]\nname = 'a'\nvad = 'picky'",
            "vivavoce: deployment[0].vad.url: is required\n",
        ),
        (
            "[[deployment]]\nname = 'a'\nlanguage_model = 'm'\n"
            "[engine.m]\nkind = 'language_model'\ntype = 'scripted'\nsript = 'x'",
            "vivavoce: engine.m.sript: ",
        ),
        (
            "[[deployment]]\nname = 'a'\nlanguage_model = 'm'\n"
            "[engine.m]\nkind = 'language_model'\ntype = 'scripted'\nscript = 'none.toml'",
            "vivavoce: engine.m.script: ",
        ),
    ],
)
def test_check_config_says_what_is_wrong(
    text: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check-config", write(tmp_path, text)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(line)
    assert shown.err.count("\n") == 1


@pytest.mark.usefixtures("installed")
def test_engines_lists_what_is_installed_and_what_does_not_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["engines"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert rows[0] == "kind name version package what it can do"
    found = {tuple(row.split()[:2]): row for row in rows[2:]}
    assert found["transcriber", "pocketsphinx"] == (
        "transcriber pocketsphinx 2 16000 Hz, while people speak, languages: en"
    )
    assert found["vad", "picky"] == "vad picky needs options: url: is required"
    assert "does not work: cannot be loaded from no_such_module_here:create" in found["synthesizer", "broken"]
    assert found["vad", "silero"].endswith("16000 Hz, 512 samples a frame")
    assert found["language_model", "scripted"].endswith("calls tools")
    assert found["tokenizer", "estimate"].endswith("estimates the tokens of text")
    assert re.fullmatch(
        r"tokenizer o200k (\S+) bpe-openai \1 counts the tokens of text exactly", found["tokenizer", "o200k"]
    )
    if sys.platform == "linux":
        assert re.fullmatch(
            r"noise reduction webrtc (\S+) webrtc-noise-gain \1 near_field, far_field", found["noise", "reduction"]
        )
    assert len(found) == 10


def test_a_tokenizer_without_its_package_is_told(
    installed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    monkeypatch.setitem(sys.modules, "bpe_openai", None)
    assert cli.main(["engines"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "tokenizer o200k does not work: pip install 'vivavoce[o200k]' installs it" in rows
    assert "noise reduction webrtc does not work: pip install 'vivavoce[noise-reduction]' installs it" in rows
    file = write(tmp_path, "[server]\ntokenizer = 'o200k'\n[[deployment]]\nname = 'a'")
    assert cli.main(["check-config", file]) == 2
    problem = "the package for o200k is not installed; pip install 'vivavoce[o200k]' installs it"
    assert capsys.readouterr() == ("", f"vivavoce: server.tokenizer: {problem}\n")


# ------------------------------------------------------------------------------------- engines of a configuration

TWO_VOICES = """
[[deployment]]
name = "a"
synthesizer = "quick"
[engine.quick]
kind = "synthesizer"
type = "espeak"
words_per_minute = 300
max_concurrent = 4
"""


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_engines_of_a_configuration_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["engines", "--config", write(tmp_path, TWO_VOICES)]) == 0
    shown = rows(capsys.readouterr().out)
    assert shown[0] == "kind name plug-in version limit health what it can do"
    assert [row.split()[1] for row in shown[2:]] == ["silero", "pocketsphinx", "turn_hints", "scripted", "quick"]
    assert re.match(r"synthesizer quick espeak .* 4 not started 22050 Hz", shown[-1])


def test_engines_of_a_configuration_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(self: object) -> None:
        raise EngineError("engine_unavailable", "There is no microphone.")

    file = write(tmp_path, TWO_VOICES)
    assert cli.main(["engines", "--config", file, "--check"]) == 0
    assert all(re.search(r"works, started in \d+\.\d s", row) for row in rows(capsys.readouterr().out)[2:])
    monkeypatch.setattr("vivavoce.engines.builtin.turn_hints.TurnHints.start", start)
    assert cli.main(["engines", "--config", file, "--check"]) == 1
    assert "turn_hints 1 does not start: There is no microphone." in capsys.readouterr().out.replace("  ", "")


def test_check_needs_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["engines", "--check"]) == 2
    assert capsys.readouterr().err == "vivavoce: --check: needs --config\n"


def test_engines_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measure(engine: Engine, material: Material, runs: int) -> list[Figures]:
        if engine.name == "scripted":
            raise EngineError("no_output", "The model said nothing.")
        return [{"a thing ms": float(n)} for n in range(1, runs + 1)]

    monkeypatch.setattr("vivavoce.engines.measure.measure", measure)
    file = write(tmp_path, TWO_VOICES)
    assert cli.main(["bench-engines", "--config", file, "--runs", "5"]) == 1
    shown = rows(capsys.readouterr().out)
    assert shown[0] == "kind name version figure median least most"
    assert re.fullmatch(r"synthesizer quick \S+ a thing ms 3 1 5", shown[-1])
    assert shown[-2] == "language_model scripted 1 no_output: The model said nothing."
    assert cli.main(["bench-engines", "--config", file, "--runs", "1", "--json"]) == 1
    told = {engine["kind"]: engine for engine in json.loads(capsys.readouterr().out)["engines"]}
    assert told["synthesizer"]["runs"] == [{"a thing ms": 1.0}]
    assert (told["synthesizer"]["name"], told["synthesizer"]["plug_in"]) == ("quick", "espeak")
    assert told["language_model"]["fault"] == {"code": "no_output", "message": "The model said nothing."}
    assert cli.main(["bench-engines", "--wav", str(tmp_path / "none.wav")]) == 2
