"""The command line. ``docs/reference/cli.md`` describes it for its user.

Laws
----
1. Exit codes: 0 done, 1 it cannot work on this machine, 2 the command line or the configuration is wrong, 130
   interrupted; ``demo`` adds its own (``vivavoce.demo.run.Exit``), ``replay`` two. An error is one line on stderr,
   no traceback.
2. A command imports what it needs when it runs: ``vivavoce --version`` loads neither numpy nor an engine.
3. A key is shown once, when it was made here; never otherwise.
"""

from __future__ import annotations

import os

# numpy's BLAS reads these when it is first imported, here and in every worker process. Left alone it starts a
# thread per core that spins between our many small products: several times the CPU, and nothing is ready sooner.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import asyncio
import logging
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from vivavoce import __version__, cli_identity, cli_models, cli_quota, cli_resource
from vivavoce.cli_failure import FAILED, WRONG, Failure
from vivavoce.config import (
    API_KEY_VARIABLE,
    ENGINE_KINDS,
    Config,
    ConfigError,
    Overrides,
    Secret,
    environment_key,
    load_config,
)

if TYPE_CHECKING:
    from yarl import URL

    from vivavoce.demo.run import DemoOptions, Endpoint
    from vivavoce.record.proxy import Recorded
    from vivavoce.record.recording import Recording
    from vivavoce.record.replay import ReplayOptions

INTERRUPTED: Final = 130
DIFFERENT: Final = 1
"""Of ``replay``: the server does not do as recorded."""
NO_SESSION: Final = 3
"""Of ``replay``: no connection, or it was refused."""

_TALKATIVE: Final = ("alembic", "httpcore", "httpx", "psycopg", "redis", "sqlalchemy")
"""Libraries that log statements with their values, URLs and headers, at levels below a warning."""

DEFAULT_DEPLOYMENT: Final = "gpt-4o-realtime-preview"

app = typer.Typer(
    name="vivavoce",
    help="A self-hosted server of the Azure OpenAI / OpenAI Realtime API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(cli_models.models)
app.command()(cli_identity.token)
app.command("simulate-ptu")(cli_quota.simulate_ptu)
app.add_typer(cli_resource.deployment_app, name="deployment")
app.add_typer(cli_resource.account_app, name="account")
app.add_typer(cli_resource.key_app, name="key")
app.add_typer(cli_resource.role_app, name="role")
app.command("usage")(cli_resource.usage)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Configuration file (TOML).", metavar="FILE", show_default=False)
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (None: the process's own); the exit code."""
    try:
        code = typer.main.get_command(app).main(argv, prog_name="vivavoce", standalone_mode=False)
    except ConfigError as error:
        return _complain(str(error), WRONG)
    except Failure as failure:
        return _complain(str(failure), failure.code)
    except typer.TyperException as error:
        return _complain(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _complain(text: str, code: int) -> int:
    if text:
        typer.echo(f"vivavoce: {text}", err=True)
    return code


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vivavoce {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """``--version`` is answered by its callback."""


# ------------------------------------------------------------------------------------------------------- serve


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 if not configured.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on, 0 for a free one; 8089 if not configured.")
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key", metavar="KEY", help=f"A key that opens the server; repeatable. Also: {API_KEY_VARIABLE}."
        ),
    ] = None,
    config: ConfigOption = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate (PEM): serve wss:// and https://.", show_default=False),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its key (PEM), if it is not in --tls-cert.", show_default=False),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error; info if not configured.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Processes that share the port, about one a core; 1 if not configured."),
    ] = None,
) -> None:
    """Run the server until SIGTERM or SIGINT. With workers, SIGHUP replaces them one by one."""
    overrides = Overrides(
        host=host,
        port=port,
        tls_cert=tls_cert,
        tls_key=tls_key,
        api_keys=tuple(Secret(key) for key in api_key or ()),
        log_level=log_level,
        workers=workers,
    )

    def load() -> Config:
        return load_config(config, environ=os.environ, overrides=overrides)

    settings = load()
    _log_to_stderr(settings.server.log_level)
    settings, made = (settings, None) if settings.identity.takes_tokens else _with_key(settings)
    if settings.server.workers > 1:
        raise typer.Exit(_serve_with_workers(settings, made, load))
    raise typer.Exit(_run(lambda: _serve(settings, made)))


async def _serve(config: Config, made: Secret | None) -> int:
    from vivavoce.gateway.deployments import EngineStartError
    from vivavoce.gateway.store.base import StoreUnavailable
    from vivavoce.server import app as server

    try:
        return await server.serve(config, on_ready=lambda ready: _announce(config, ready.port, made))
    except (EngineStartError, StoreUnavailable) as error:
        raise Failure(FAILED, str(error)) from error
    except OSError as error:
        raise _cannot_listen(config, error) from error


def _serve_with_workers(config: Config, made: Secret | None, load: Callable[[], Config]) -> int:
    """``load`` reads the configuration again, for workers that take the place of others."""
    from vivavoce.server.supervisor import listen

    try:
        listener = listen(config.server.host, config.server.port)
    except OSError as error:
        raise _cannot_listen(config, error) from error
    with tempfile.TemporaryDirectory(prefix="vivavoce-") as folder:
        return _supervise(listener, config, made, _Fleet(config, made, Path(folder)), load)


def _supervise(
    listener: socket.socket, config: Config, made: Secret | None, fleet: _Fleet, load: Callable[[], Config]
) -> int:
    from vivavoce.server.supervisor import Supervisor

    return Supervisor(
        listener,
        fleet.work,
        count=config.server.workers,
        host=fleet.host,
        grace_s=config.server.shutdown_grace_s,
        on_ready=lambda: _announce(config, listener.getsockname()[1], made),
        renew=lambda: fleet.renew(load()),
        on_end=fleet.forget,
    ).run()


class _Fleet:
    """What every new worker works with; ``folder``: a private one, for the sockets between them and their host."""

    def __init__(self, config: Config, made: Secret | None, folder: Path) -> None:
        self._made = made
        self._folder = folder
        self._count = config.server.workers
        self._generations: list[tuple[Config, Path]] = []
        """The configuration of each generation, and the socket of its host."""
        from vivavoce.gateway.shared.workers import WorkersState

        self._shared = WorkersState(folder)
        self._metrics = folder / "metrics"
        self._metrics.mkdir()
        self.renew(config)

    def renew(self, config: Config) -> None:
        """For the workers that start from now on. Raises ConfigError, and OSError."""
        from vivavoce.server.tls import server_context

        if not config.resource.keys and self._made is not None:
            config = config.with_keys(self._made)
        if not config.resource.keys and not config.identity.takes_tokens:
            raise ConfigError("resource.keys", "none is left, and nobody could come in")
        server_context(config.server)
        path = self._folder / f"engines-{len(self._generations)}"
        self._generations.append((config.for_one_worker(self._count), path))

    def work(self, control: socket.socket) -> int:
        """A worker, in its own process."""
        self._share_metrics()
        from vivavoce.server.worker import work

        config, path = self._generations[-1]
        return self._guarded(lambda: work(config, control, self._shared, path, metrics=self._metrics))

    def host(self, control: socket.socket, generation: int) -> int:
        """The host of the engines that the workers of a generation share, in its own process."""
        self._share_metrics()
        from vivavoce.server.worker import host

        config, path = self._generations[generation]
        path.unlink(missing_ok=True)
        return self._guarded(lambda: host(config, control, path, self._metrics))

    def _share_metrics(self) -> None:
        # prometheus_client reads it when it is first imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._metrics)

    def forget(self, pid: int) -> None:
        """A process has ended: what it counted stays counted, but it has nothing open or under way any more."""
        for file in self._metrics.glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)

    def _guarded(self, work: Callable[[], Coroutine[Any, Any, int]]) -> int:
        from vivavoce.gateway.deployments import EngineStartError
        from vivavoce.gateway.store.base import StoreUnavailable

        try:
            return _run(work)
        except ConfigError as error:
            return _complain(str(error), WRONG)
        except (EngineStartError, StoreUnavailable) as error:
            return _complain(str(error), FAILED)


def _cannot_listen(config: Config, error: OSError) -> Failure:
    return Failure(FAILED, f"cannot serve on {config.server.host}:{config.server.port}: {_why(error)}")


def _why(error: OSError) -> str:
    """Event loops put the address into ``strerror`` again. Faults of name resolution have negative numbers."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)


def _announce(config: Config, port: int, made: Secret | None) -> None:
    """The key, if it was made here, then the one line that says where the server is."""
    if made is not None:
        typer.echo(f"No API key was given, so one was made for this run: {made.reveal()}")
    scheme = "ws" if config.server.tls_cert is None else "wss"
    base = f"{scheme}://{_host_in_url(config.server.host)}:{port}"
    name = config.deployments[0].name
    typer.echo(
        f"vivavoce is ready: {base}/openai/realtime?api-version=2024-10-01-preview&deployment={name} (Azure), "
        f"{base}/v1/realtime?model={name} (OpenAI)"
    )
    sys.stdout.flush()


def _host_in_url(host: str) -> str:
    """Every address is no address to connect to, and IPv6 goes into brackets."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _with_key(config: Config) -> tuple[Config, Secret | None]:
    """The configuration with a key in any case, and that key if it had to be made."""
    from vivavoce.gateway.auth import new_key

    if config.resource.keys:
        return config, None
    made = new_key()
    return config.with_keys(made), made


def _run(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """On uvloop where it exists: it does not on Windows."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work())
    return uvloop.run(work())


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.WARNING)


# -------------------------------------------------------------------------------------------------------- demo


@app.command()
def demo(
    wav: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask with this WAV file instead of the shipped question.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Type this instead of speaking.")] = None,
    url: Annotated[
        str | None, typer.Option(help="A server that already runs, ours or a real one; else one is started.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", help=f"Key for --url. Also: {API_KEY_VARIABLE}.")
    ] = None,
    deployment: Annotated[str | None, typer.Option(metavar="NAME", help="Deployment (or model) to ask.")] = None,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the spoken reply goes.")] = Path(
        "demo-reply.wav"
    ),
    voice: Annotated[str | None, typer.Option(help="Voice of the reply: alloy, ash, ...")] = None,
    instructions: Annotated[str | None, typer.Option(help="Instructions for the session.")] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Longest wait for an answer.")] = 60.0,
    config: ConfigOption = None,
) -> None:
    """Ask a spoken question in a real session, show what happens, and write the reply as a WAV file."""
    from vivavoce.demo.run import DemoOptions

    if url is not None and config is not None:
        raise Failure(WRONG, "--config is for a server that the demo starts; it does not go with --url")
    if url is None and api_key is not None:
        raise Failure(WRONG, "--api-key is for a server that already runs; give its --url")
    _log_to_stderr("warning")
    settings = None if url is not None else load_config(config, environ=os.environ)
    options = DemoOptions(
        wav=wav,
        text=text,
        url=url,
        api_key=api_key if url is None or api_key is not None else _key_from_environment(),
        deployment=deployment or (DEFAULT_DEPLOYMENT if settings is None else settings.deployments[0].name),
        output=output,
        timeout_s=timeout,
        voice=voice,
        instructions=instructions,
    )
    raise typer.Exit(_run(lambda: _demo(options, settings)))


def _key_from_environment() -> str | None:
    key = environment_key(os.environ)
    return None if key is None else key.reveal()


async def _demo(options: DemoOptions, config: Config | None) -> int:
    from vivavoce.demo.run import run_demo
    from vivavoce.gateway.deployments import EngineStartError

    @asynccontextmanager
    async def serve() -> AsyncIterator[Endpoint]:
        assert config is not None, "a demo with a URL starts no server"
        async with _own_server(config) as endpoint:
            yield endpoint

    try:
        return await run_demo(options, serve=serve, console=Console())
    except EngineStartError as error:
        raise Failure(FAILED, str(error)) from error


@asynccontextmanager
async def _own_server(config: Config) -> AsyncIterator[Endpoint]:
    from vivavoce.demo.run import Endpoint
    from vivavoce.server.app import running

    config, _ = _with_key(config)
    # It is for this process alone, and no certificate is for 127.0.0.1.
    plain = msgspec.structs.replace(config.server, tls_cert=None, tls_key=None)
    config = msgspec.structs.replace(config, server=plain)
    async with running(config, host="127.0.0.1", port=0) as server:
        yield Endpoint(f"ws://127.0.0.1:{server.port}", config.resource.keys[0].reveal())


# ---------------------------------------------------------------------------------------------- record, replay

HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="'NAME: VALUE'",
        help="Send this header, instead of any of its name; repeatable. Its value is not recorded.",
    ),
]
UrlOption = Annotated[str, typer.Option(help="The server: wss://host, with or without path and query.")]


@app.command()
def record(
    url: UrlOption,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where clients connect; port 0 takes a free one.")
    ] = "127.0.0.1:8090",
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The recording; -2, -3, ... for connections after the first.")
    ] = Path("recording.jsonl"),
    no_audio: Annotated[
        bool, typer.Option("--no-audio", help="Leave audio out; a session with speech cannot be replayed then.")
    ] = False,
    header: HeaderOption = None,
) -> None:
    """Sit between clients and any Realtime server, and write down what both say."""
    from vivavoce.record.proxy import RecordOptions
    from vivavoce.record.proxy import record as run

    host, port = _address(listen)
    target, headers = _target(url, header)
    _log_to_stderr("warning")
    options = RecordOptions(target=target, out=out, audio=not no_audio, headers=headers)

    def announce(listening: int) -> None:
        base = f"ws://{_host_in_url(host)}:{listening}"
        typer.echo(f"vivavoce records {base} -> {target.origin()}")
        sys.stdout.flush()

    def tell(recorded: Recorded) -> None:
        typer.echo(f"{recorded.path}: {recorded.frames} messages, {recorded.outcome}")
        sys.stdout.flush()

    async def work() -> int:
        try:
            return await run(options, host=host, port=port, on_ready=announce, on_recorded=tell)
        except OSError as error:
            raise Failure(FAILED, f"cannot listen on {host}:{port}: {_why(error)}") from error

    raise typer.Exit(_run(work))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise Failure(WRONG, "--listen: must look like 127.0.0.1:8090")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _target(url: str, header: list[str] | None) -> tuple[URL, tuple[tuple[str, str], ...]]:
    from vivavoce.record.upstream import BadTarget, header_of, target_of

    try:
        return target_of(url), tuple(header_of(one) for one in header or ())
    except BadTarget as error:
        raise Failure(WRONG, str(error)) from error


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording of vivavoce record.")],
    url: UrlOption,
    header: HeaderOption = None,
    api_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help=f"Goes where the recording hides a key. Also: {API_KEY_VARIABLE}."),
    ] = None,
    pace: Annotated[str, typer.Option(metavar="PACE", help="recorded, or fast: as soon as may be.")] = "recorded",
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Longest silence while something must come.")
    ] = 10.0,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Do not compare these: TYPE or TYPE/PATH, with *; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the new session as a recording.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send the client's side of a recording again, and print what the server does differently."""
    from vivavoce.record.compare import Ignore
    from vivavoce.record.recording import RecordingError, load
    from vivavoce.record.replay import ReplayOptions, check

    target, headers = _target(url, header)
    if pace not in ("recorded", "fast"):
        raise Failure(WRONG, "--pace: must be recorded or fast")
    try:
        ignored = Ignore(ignore or ())
    except ValueError as error:
        raise Failure(WRONG, f"--ignore: {error}") from error
    try:
        recorded = load(file)
        check(recorded)
    except RecordingError as error:
        raise Failure(WRONG, str(error)) from error
    except OSError as error:
        raise Failure(WRONG, f"cannot read {file}: {_why(error)}") from error
    _log_to_stderr("warning")
    options = ReplayOptions(
        target=target,
        headers=headers,
        api_key=api_key if api_key is not None else _key_from_environment(),
        pace="fast" if pace == "fast" else "recorded",
        patience_s=wait,
        ignore=ignored,
    )
    raise typer.Exit(_run(lambda: _replay(recorded, options, out, as_json=as_json)))


async def _replay(recorded: Recording, options: ReplayOptions, out: Path | None, *, as_json: bool) -> int:
    from vivavoce.record import show
    from vivavoce.record.compare import compare
    from vivavoce.record.recording import save
    from vivavoce.record.replay import replay as run
    from vivavoce.record.upstream import Unreachable

    try:
        replayed = await run(recorded, options)
    except Unreachable as error:
        raise Failure(NO_SESSION, f"the server cannot be reached: {error}") from error
    now = replayed.recording
    if out is not None:
        try:
            save(now, out)
        except OSError as error:
            raise Failure(WRONG, f"cannot write {out}: {_why(error)}") from error
    answer = now.header.answer
    if answer.status != 101 and recorded.header.answer.status == 101:
        raise Failure(
            NO_SESSION, f"the server refused the connection: HTTP {answer.status} {answer.body or ''}".strip()
        )
    found = compare(recorded, now, options.ignore).differences
    if as_json:
        typer.echo(show.as_json(found, replayed.notes, recorded, now))
    else:
        show.show(Console(markup=False, highlight=False), found, replayed.notes, recorded, now)
    return DIFFERENT if found else 0


# -------------------------------------------------------------------------------------- check-config, engines


@app.command("check-config")
def check_config(file: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration file (TOML).")]) -> None:
    """Check a configuration file, with the options of its engines; nothing is started."""
    from vivavoce.cli_engines import print_table
    from vivavoce.cli_prompts import prompt_table
    from vivavoce.engines.registry import Registry
    from vivavoce.gateway.deployments import Deployment, build_engines
    from vivavoce.gateway.limits import catalogue_of
    from vivavoce.gateway.store.declared import Declared
    from vivavoce.gateway.store.opening import describe_store
    from vivavoce.server import tokenizer
    from vivavoce.server.tls import server_context

    config = load_config(file, environ=os.environ)
    store = describe_store(config)
    catalogue_of(config)
    Declared(config)
    build_engines(config, Registry.installed())
    server_context(config.server)
    tokenizer.load(config.server.tokenizer)
    several = len(config.accounts) > 1
    table = Table(
        *(("account",) if several else ()),
        "deployment",
        "model",
        "profile",
        "vad",
        "transcriber",
        "end of turn",
        "language model",
        "synthesizer",
        "speech model",
        "tpm",
        "rpm",
        "ptu",
    )
    for settings in config.deployments:
        one = Deployment.of(settings)
        limits = (str(one.tokens_per_minute), str(one.requests_per_minute), "")
        if one.provision is not None:
            limits = ("", "", str(one.provision.ptus))
        used = [one.engines.get(kind, "") for kind in ENGINE_KINDS]
        whose = (settings.account or config.resource.name,) if several else ()
        table.add_row(*whose, one.name, one.reported_model, one.profile or "by connection", *used, *limits)
    print_table(table)
    if config.recipes:
        table = Table("recipe", "models", "profile", *(kind.replace("_", " ") for kind in ENGINE_KINDS))
        for name, recipe in config.recipes.items():
            used = [recipe.engines.get(kind, "") for kind in ENGINE_KINDS]
            table.add_row(name, ", ".join(recipe.models), recipe.profile or "by connection", *used)
        print_table(table)
    if config.prompts:
        print_table(prompt_table(config.prompts))
    server = config.server
    place = f"{server.host}:{server.port}{', TLS' if server.tls_cert else ''}"
    if store:
        typer.echo(f"{file}: store, {store}")
    for account in config.more_accounts:
        typer.echo(f"{file}: account {account.name}, {_counted_keys(account.keys)}")
    typer.echo(f"{file}: ok. Resource {config.resource.name}, {place}, {_counted_keys(config.resource.keys)}")
    for name in config.unused_engines():
        typer.echo(f"{file}: engine.{name} is used by no deployment", err=True)


def _counted_keys(keys: Sequence[Secret]) -> str:
    return f"{len(keys) or 'no'} {'key' if len(keys) == 1 else 'keys'}"


@app.command()
def engines(
    config: ConfigOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Start each engine of --config, and tell whether it works.")
    ] = False,
) -> None:
    """List the installed engines and what they can do; with --config those that it uses."""
    from vivavoce.cli_engines import configured, list_installed
    from vivavoce.engines.registry import Registry

    registry = Registry.installed()
    if config is not None:
        # An engine that starts and does not work yet says why as a warning.
        _log_to_stderr("warning" if check else "error")
        settings = load_config(config, environ=os.environ)
        raise typer.Exit(_run(lambda: configured(settings, registry, check=check)))
    if check:
        raise Failure(WRONG, "--check: needs --config")
    list_installed(registry)


@app.command("bench-engines")
def bench_engines(
    config: ConfigOption = None,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Runs, after one to warm up.")] = 3,
    wav: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What recognisers hear; else a shipped English sentence."),
    ] = None,
    language: Annotated[str | None, typer.Option(metavar="CODE", help="Its language (ISO-639-1).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the engines of a configuration on this machine, one after the other."""
    from vivavoce.cli_engines import measured
    from vivavoce.demo.sound import RATE, WavError, parse_wav, read_wav
    from vivavoce.engines.measure import Material
    from vivavoce.server import tokenizer

    _log_to_stderr("error")
    settings = load_config(config, environ=os.environ)
    try:
        shipped = files("vivavoce.demo").joinpath("data", "question.wav")
        speech = parse_wav(shipped.read_bytes()) if wav is None else read_wav(wav)
    except (OSError, WavError) as error:
        raise Failure(WRONG, f"--wav: {wav}: {error}") from error
    material = Material(speech, RATE, tokenizer.load(settings.server.tokenizer).text, language)
    raise typer.Exit(_run(lambda: measured(settings, material, runs, as_json=as_json)))
