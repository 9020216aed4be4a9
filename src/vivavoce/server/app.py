"""The composition root: configuration in, a running server out."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec
from aiohttp import http_exceptions, web

from vivavoce.audio import noise_reduction
from vivavoce.config import Config
from vivavoce.config.identity import EntraSettings
from vivavoce.core.conversation import MessageLimits
from vivavoce.engines.registry import Registry
from vivavoce.gateway.admission import AdmissionPolicy
from vivavoce.gateway.audit import open_audit
from vivavoce.gateway.client_secrets import ClientSecrets
from vivavoce.gateway.deployments import Deployments, Substitution, open_deployments
from vivavoce.gateway.limits import Rules
from vivavoce.gateway.models.upgrades import Upgrades
from vivavoce.gateway.prompts import DeclaredPrompts
from vivavoce.gateway.sessions import SessionDirectory
from vivavoce.gateway.shared.base import SharedState
from vivavoce.gateway.shared.opening import open_shared_state
from vivavoce.gateway.store.base import Store
from vivavoce.gateway.store.opening import open_store
from vivavoce.gateway.usage import UsageLedger, sweep_usage
from vivavoce.runtime.bugs import outline
from vivavoce.server import tokenizer
from vivavoce.server.client_secrets import SecretsEndpoint
from vivavoce.server.engine_room import EngineRoom
from vivavoce.server.identity import open_doorkeeper
from vivavoce.server.management import management_endpoint
from vivavoce.server.metrics import CONTENT_TYPE, Metrics
from vivavoce.server.tls import server_context
from vivavoce.server.websocket import RealtimeEndpoint

log = logging.getLogger(__name__)

_http_log = logging.getLogger("vivavoce.server.http")
BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""


class Assembly:
    """Engines that run and an endpoint over them, without a socket; made by :func:`assembled`."""

    def __init__(
        self,
        config: Config,
        endpoint: RealtimeEndpoint,
        store: Store,
        runner: web.AppRunner,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.config = config
        self.endpoint = endpoint
        self.store = store
        self.runner = runner
        self.tls = tls

    @property
    def open_connections(self) -> int:
        """Connections of all kinds."""
        return len(self._http.connections)

    async def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that somebody else has accepted. Raises OSError and TimeoutError."""
        await asyncio.get_running_loop().connect_accepted_socket(self._http, connection, ssl=self.tls)

    @property
    def _http(self) -> web.Server:
        assert self.runner.server is not None
        return self.runner.server


class Server:
    """A server that accepts sessions; made by :func:`running`."""

    def __init__(self, config: Config, endpoint: RealtimeEndpoint, store: Store, port: int) -> None:
        self.config = config
        self.port = port
        """The port that is listened on, also when the configuration asks for any free one."""
        self.endpoint = endpoint
        self.store = store


@asynccontextmanager
async def assembled(
    config: Config,
    *,
    registry: Registry | None = None,
    shared: SharedState | None = None,
    instead: Substitution | None = None,
    metrics: Metrics | None = None,
) -> AsyncIterator[Assembly]:
    """Engines up; on leaving, sessions end first, then the engines.

    ``registry``: None for the installed engines; ``shared``: what the processes of the server have in common, which
    is closed here, None for a process alone, and unused where a Redis is configured; ``instead``: what to use in
    the place of an engine; ``metrics``: where they are counted, None for our own, if the configuration wants any.
    Raises ConfigError, EngineStartError and StoreUnavailable.
    """
    if metrics is None and config.server.metrics:
        metrics = Metrics()
    # aiohttp warns about subprotocols that it does not know, and a browser puts its key into one.
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
    _http_log.addFilter(_without_texts)
    tls = server_context(config.server)
    tokens = tokenizer.load(config.server.tokenizer)
    log.info("tokens of text are counted by: %s", config.server.tokenizer)
    reduces_noise = noise_reduction.available()
    log.info("noise reduction is %s", "installed" if reduces_noise else "not installed")
    async with AsyncExitStack() as stack:
        rules = Rules.of(config)
        audit = stack.enter_context(open_audit(config.audit))
        shared = await stack.enter_async_context(open_shared_state(config.counters, shared))
        store = await stack.enter_async_context(open_store(config))
        client_secrets = ClientSecrets(shared)
        doorkeeper = await stack.enter_async_context(
            open_doorkeeper(config, lambda: store.current, more=[client_secrets])
        )
        deployments = await stack.enter_async_context(
            open_deployments(
                config,
                registry,
                shared=shared,
                instead=instead,
                watches=None if metrics is None else metrics.watch,
                directory=store.current,
            )
        )
        stack.callback(store.follow(deployments.follow))
        # What has changed while the engines started.
        deployments.follow(store.current)
        engines = EngineRoom(deployments, metrics)
        await stack.enter_async_context(engines)
        policy = AdmissionPolicy(
            deployments.catalogue,
            lambda: store.current,
            config.server.max_custom_headers,
            config.resource.subprotocol_keys,
            audience=(config.identity.entra or EntraSettings()).audience[0],
            has_ended=rules.has_ended,
        )
        ledger: UsageLedger | None = None
        if config.store is not None:
            ledger = UsageLedger(store)
            stack.push_async_callback(ledger.close)
            writing = asyncio.create_task(ledger.run(), name="write usage")
            stack.callback(writing.cancel)
            sweeping = asyncio.create_task(sweep_usage(store, config.store.usage_days), name="sweep usage")
            stack.callback(sweeping.cancel)
        sessions = SessionDirectory(shared)
        prompts = DeclaredPrompts(config)
        endpoint = RealtimeEndpoint(
            deployments=deployments,
            engines=engines,
            policy=policy,
            doorkeeper=doorkeeper,
            max_sessions=config.server.max_sessions,
            ping_interval_s=config.server.ping_interval_s,
            session_seconds=config.server.session_seconds,
            compression=config.server.compression,
            tokens=tokens,
            reduces_noise=reduces_noise,
            prompts=prompts,
            metrics=metrics,
            audit=audit,
            ledger=ledger,
            sessions=sessions,
            message_limits=MessageLimits(config.limits.message_chars, config.limits.message_images),
        )
        renewing = asyncio.create_task(sessions.renew_regularly(), name="renew sessions")
        stack.callback(renewing.cancel)
        secrets_endpoint = SecretsEndpoint(
            client_secrets,
            policy=policy,
            doorkeeper=doorkeeper,
            body_timeout_s=config.server.request_timeout_s,
            reduces_noise=reduces_noise,
            prompts=prompts,
            reasons=lambda deployment: engines(deployments[deployment.label]).speaker.reasons,
            metrics=metrics,
            audit=audit,
        )
        if config.store is not None:
            upgrading = asyncio.create_task(Upgrades(store, rules, audit).run(), name="upgrade deployments")
            stack.callback(upgrading.cancel)
        if metrics is not None:
            metrics.look_at(deployments.engines)
            metrics.also(endpoint.count_events)
            metrics.look_at_shared_state(shared)
            metrics.look_at_utilization(
                lambda: {label: one.utilization for label, one in deployments.provisioned()}
            )
            looking = asyncio.create_task(
                metrics.look_regularly(deployments.refresh_utilization), name="look at metrics"
            )
            stack.callback(looking.cancel)
        routes = list(doorkeeper.routes)
        if config.management.enabled:
            routes += management_endpoint(config, store, doorkeeper, deployments, audit).routes
        runner = web.AppRunner(
            _application(endpoint, secrets_endpoint, engines, deployments, metrics, routes),
            access_log=None,
            logger=_http_log,
            shutdown_timeout=config.server.shutdown_grace_s,
            # aiohttp's word for the time without a whole request, the first one included.
            keepalive_timeout=config.server.request_timeout_s,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            yield Assembly(config, endpoint, store, runner, tls)
        finally:
            await endpoint.drain(config.server.shutdown_grace_s)


@asynccontextmanager
async def running(
    config: Config, *, host: str | None = None, port: int | None = None, registry: Registry | None = None
) -> AsyncIterator[Server]:
    """As :func:`assembled`, and a socket that is listened on; it is closed first.

    ``host`` and ``port`` (0: any free one) are those of the configuration unless given. Raises OSError when the
    address cannot be listened on.
    """
    async with assembled(config, registry=registry) as assembly:
        site = web.TCPSite(
            assembly.runner,
            config.server.host if host is None else host,
            config.server.port if port is None else port,
            backlog=BACKLOG,
            ssl_context=assembly.tls,
        )
        await site.start()
        try:
            yield Server(config, assembly.endpoint, assembly.store, assembly.runner.addresses[0][1])
        finally:
            await site.stop()


def settle_memory() -> None:
    """To be called when everything is loaded. It stays: a full collection would look at it again and again, and
    hold up every session for 70 ms each time (measured at 100 sessions)."""
    gc.collect()
    gc.freeze()


async def serve(config: Config, *, on_ready: Callable[[Server], None]) -> int:
    """Run until SIGTERM or SIGINT, then end in order; at once while engines still start. Returns the exit code."""
    stop = asyncio.Event()
    on_the_air = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def serve_until_stopped() -> None:
        async with running(config) as server:
            on_the_air.set()
            settle_memory()
            on_ready(server)
            await stop.wait()
            log.info("stopping: %d sessions are open", server.endpoint.open_sessions)

    serving = asyncio.create_task(serve_until_stopped(), name="serve")

    def asked_to_stop() -> None:
        stop.set()
        if not on_the_air.is_set():
            serving.cancel()

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, asked_to_stop)
    try:
        await serving
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(name)
    return 0


def _application(
    endpoint: RealtimeEndpoint,
    secrets_endpoint: SecretsEndpoint,
    engines: EngineRoom,
    deployments: Deployments,
    metrics: Metrics | None,
    routes: Iterable[web.RouteDef],
) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        return _json(200, {"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        body: dict[str, object] = {"status": "ready", "sessions": endpoint.open_sessions}
        failing = deployments.failing()
        if not engines.running:
            failing.append("vad pool")
        if failing:
            body |= {"status": "failing", "failing": failing}
        if endpoint.draining:
            body["status"] = "draining"
        return _json(200 if body["status"] == "ready" else 503, body)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    if metrics is not None:
        told = metrics

        async def tell_metrics(_: web.Request) -> web.Response:
            return web.Response(body=await told.exposition(), headers={"Content-Type": CONTENT_TYPE})

        app.router.add_get("/metrics", tell_metrics)
    app.router.add_routes(routes)
    secrets_endpoint.register(app.router)
    app.router.add_route("*", "/{path:.*}", endpoint.handle)
    return app


def _without_texts(record: logging.LogRecord) -> bool:
    """What the HTTP parser refuses it logs, and the line at fault may hold a key: the kind of fault must do."""
    if record.exc_info and record.exc_info[1] is not None:
        fault = record.exc_info[1]
        if isinstance(fault, http_exceptions.HttpProcessingError):
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args = f"a request was refused: {type(fault).__name__}", None
        else:
            record.msg, record.args = f"a request failed: {outline(fault)}", None
        record.exc_info = record.exc_text = None
    return True


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
