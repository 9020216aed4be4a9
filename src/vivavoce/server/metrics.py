"""What ``/metrics`` tells Prometheus; ``docs/how-to/monitor.md`` describes it for its reader.

Laws
----
1. Labels have few values: deployments and engines of the configuration, statuses, and codes, of which those beyond
   :data:`MAX_CODES` are one. No label is an id, an address or anything that a client can choose.
2. Nothing is counted for a frame or a delta: events are counted by their session, and looked at every
   :data:`LOOK_S` seconds.
3. Processes of one server write into one folder, and each of them can tell the sum (``prometheus_client`` does
   that, where ``PROMETHEUS_MULTIPROC_DIR`` is set before it is imported).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

from vivavoce.gateway.deployments import EngineKey, EngineSet
from vivavoce.gateway.limiting import Spilled
from vivavoce.gateway.quota import NAMES, Denied, Reserved
from vivavoce.gateway.shared.base import SharedState
from vivavoce.runtime.engines import Stages

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
LOOK_S: Final = 2.0
MAX_CODES: Final = 50
OTHER: Final = "other"
_BUCKETS: Final = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one process; ``folder``: where those of all processes are, None for a process alone."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._registry = CollectorRegistry()
        self._codes: set[str] = set()
        self._looks: list[Callable[[], None]] = []
        self._restarts: dict[EngineKey, int] = {}
        self.sessions = self._gauge("vivavoce_sessions", "Sessions that are open now.", "deployment")
        self.opened = self._counter("vivavoce_sessions_opened", "Sessions that were opened.", "deployment")
        self.refused = self._counter(
            "vivavoce_connections_refused",
            "Connections that became no session, by HTTP status or close code.",
            "status",
        )
        self.secrets = self._counter(
            "vivavoce_client_secrets_minted", "Client secrets that were handed out.", "deployment"
        )
        self.secrets_refused = self._counter(
            "vivavoce_client_secrets_refused",
            "Requests for client secrets that got none, by HTTP status.",
            "status",
        )
        self.limited = self._counter(
            "vivavoce_connections_limited",
            "Connections that were refused because of a limit, by the limit.",
            *("deployment", "limit"),
        )
        self.admitted = self._counter(
            "vivavoce_responses_admitted", "Responses that quota let begin.", "deployment"
        )
        self.denied = self._counter(
            "vivavoce_responses_denied",
            "Responses that quota refused, by the limit in the way.",
            *("deployment", "limit"),
        )
        self.spilled = self._counter(
            "vivavoce_responses_spilled_over",
            "Of those admitted, what another deployment had to take.",
            "deployment",
        )
        self.utilization = Gauge(
            "vivavoce_provisioned_utilization_ratio",
            "How far provisioned throughput is used up: 1 is 100 %; bursts lift it above.",
            ("deployment",),
            registry=self._registry,
            # All processes look at the same bucket.
            multiprocess_mode="livemax",
        )
        self._provisioned: set[str] = set()
        self.received = self._counter("vivavoce_client_events", "Events from clients.", "deployment")
        self.sent = self._counter("vivavoce_server_events", "Events to clients.", "deployment")
        self.responses = self._counter("vivavoce_responses", "Responses that ended.", "deployment", "status")
        self.recognition = self._histogram(
            "vivavoce_recognition_seconds", "From the end of an utterance to its final transcript."
        )
        self.first_output = self._histogram(
            "vivavoce_response_first_output_seconds", "From the start of a response to the model's first output."
        )
        self.first_audio = self._histogram(
            "vivavoce_response_first_audio_seconds", "From the start of a response to its first audio."
        )
        self.total = self._histogram("vivavoce_response_seconds", "From the start of a response to its end.")
        engine = ("kind", "engine")
        self.in_flight = self._gauge("vivavoce_engine_in_flight", "Work that an engine has now.", *engine)
        self.waiting = self._gauge("vivavoce_engine_waiting", "Work that waits for its limit now.", *engine)
        self.work = self._counter("vivavoce_engine_work", "Work that ended, in order or not.", *engine)
        self.failures = self._counter("vivavoce_engine_failures", "Work that failed.", *engine, "code")
        self.restarts = self._counter("vivavoce_engine_restarts", "Workers that were replaced.", *engine)
        self.working = Gauge(
            "vivavoce_engine_working",
            "1 while an engine works, in every process that has it.",
            engine,
            registry=self._registry,
            multiprocess_mode="livemin",
        )

        self.shared_working = Gauge(
            "vivavoce_shared_state_working",
            "1 while what the processes of the server share can be reached, in every one of them.",
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        # The host of engines shares nothing, and must not make the least of all processes 0.
        self.shared_working.set(1)
        self.shared_losses = self._counter(
            "vivavoce_shared_state_losses", "Times that a process lost what it shares with others."
        )

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode="livesum")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ("deployment",), registry=self._registry, buckets=_BUCKETS)

    async def exposition(self) -> bytes:
        """The text for Prometheus."""
        for look in self._looks:
            look()
        return await asyncio.to_thread(self._exposition)

    def _exposition(self) -> bytes:
        if self._folder is None:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody, str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(everybody)

    async def look_regularly(self, ask: Callable[[], Awaitable[None]] | None = None) -> None:
        """Until cancelled: what is not counted as it happens is looked at now and then. ``ask``: what has to be
        asked for before."""
        while True:
            if ask is not None:
                await ask()
            for look in self._looks:
                look()
            await asyncio.sleep(LOOK_S)

    def look_at(self, engines: EngineSet) -> None:
        """Tell from now on whether these engines work, and how often their workers were replaced."""
        self._looks.append(lambda: self._look(engines))

    def look_at_shared_state(self, state: SharedState) -> None:
        """Tell from now on whether it can be reached."""
        known = 0

        def look() -> None:
            nonlocal known
            self.shared_working.set(state.reachable)
            self.shared_losses.inc(state.losses - known)
            known = state.losses

        self._looks.append(look)

    def look_at_utilization(self, levels: Callable[[], Mapping[str, float]]) -> None:
        """Tell from now on how full provisioned deployments are. ``levels``: by their labels."""

        def look() -> None:
            now = levels()
            # A gauge cannot be taken back where processes share a folder.
            for label in self._provisioned - now.keys():
                self.utilization.labels(label).set(0)
            for label, level in now.items():
                self.utilization.labels(label).set(level)
            self._provisioned |= now.keys()

        self._looks.append(look)

    def also(self, look: Callable[[], None]) -> None:
        """Call ``look`` before the metrics are told, and now and then."""
        self._looks.append(look)

    def _look(self, engines: EngineSet) -> None:
        failing = set(engines.failing())
        for key, engine in engines:
            self.working.labels(*key).set(key not in failing)
            known = self._restarts.get(key, 0)
            # A plug-in's own, so it may be anything.
            with suppress(Exception):
                self._restarts[key] = restarts = int(getattr(engine, "restarts", 0))
                self.restarts.labels(*key).inc(max(0, restarts - known))

    def watch(self, key: EngineKey) -> EngineWatch:
        """Counts what becomes of an engine's work."""
        return EngineWatch(self, key)

    def telemetry(self, deployment: str) -> DeploymentTelemetry:
        return DeploymentTelemetry(self, deployment)

    def quota(self, deployment: str) -> QuotaCounts:
        """Counts what quota says to the responses of a deployment."""
        return QuotaCounts(self, deployment)

    def code(self, code: str) -> str:
        """A code as a label (law 1)."""
        if code not in self._codes:
            if len(self._codes) >= MAX_CODES:
                return OTHER
            self._codes.add(code)
        return code


class EngineWatch:
    """A :class:`vivavoce.engines.gate.Watch`."""

    def __init__(self, metrics: Metrics, key: EngineKey) -> None:
        self._metrics = metrics
        self._key = key
        self._in_flight = metrics.in_flight.labels(*key)
        self._waiting = metrics.waiting.labels(*key)
        self._work = metrics.work.labels(*key)

    def in_flight(self, count: int) -> None:
        self._in_flight.set(count)

    def waiting(self, count: int) -> None:
        self._waiting.set(count)

    def ended(self, code: str | None) -> None:
        self._work.inc()
        if code is not None:
            self._metrics.failures.labels(*self._key, self._metrics.code(code)).inc()


class QuotaCounts:
    """What quota said to the responses of a deployment."""

    def __init__(self, metrics: Metrics, deployment: str) -> None:
        self._admitted = metrics.admitted.labels(deployment)
        self._spilled = metrics.spilled.labels(deployment)
        self._denied = {name: metrics.denied.labels(deployment, name) for name in NAMES}

    def answered(self, answer: Reserved | Denied) -> None:
        """It was asked for one."""
        if isinstance(answer, Denied):
            self._denied[answer.name].inc()
            return
        self._admitted.inc()
        if isinstance(answer, Spilled):
            self._spilled.inc()


class DeploymentTelemetry:
    """A :class:`vivavoce.runtime.engines.Telemetry`."""

    def __init__(self, metrics: Metrics, deployment: str) -> None:
        self._responses = metrics.responses
        self._deployment = deployment
        self._recognition = metrics.recognition.labels(deployment)
        self._histograms = [
            one.labels(deployment) for one in (metrics.first_output, metrics.first_audio, metrics.total)
        ]

    def recognised(self, seconds: float) -> None:
        self._recognition.observe(seconds)

    def responded(self, status: str, stages: Stages) -> None:
        self._responses.labels(self._deployment, status).inc()
        taken: Iterable[float | None] = (stages.first_output_s, stages.first_audio_s, stages.total_s)
        for histogram, seconds in zip(self._histograms, taken, strict=True):
            if seconds is not None:
                histogram.observe(seconds)
