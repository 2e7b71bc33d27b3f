"""A run: sends the planner's requests through the pool when they are due, and measures the responses."""

from __future__ import annotations

import gc
import heapq
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from .fleet import Fleet, Server
from .measured import Measured, Summary
from .planner import ActionKind, Machine, Planner, ServerResponse
from .poll import Audience
from .pool import Exchange, Pool
from .wire import write_request


@dataclass
class RunProgress:
    """The state of a run at one moment."""

    elapsed_s: float
    rate: float
    healthy: int
    agents: int
    in_flight: int
    waiting: int
    measured: Measured

    def line(self) -> str:
        """Return the state as one line."""
        latency = self.measured.latency
        return (
            f"{self.elapsed_s:6.1f} s  {self.rate:6.0f}/s  p50 {latency.percentile_s(50) * 1000:.1f} ms"
            f"  p99 {latency.percentile_s(99) * 1000:.1f} ms  busy {self.measured.busy}  errors {self.measured.errors}"
            f"  in flight {self.in_flight}  waiting {self.waiting}  healthy {self.healthy}/{self.agents}"
        )


@dataclass
class Run:
    """One run of a planner's fleet against a server."""

    planner: Planner
    fleet: Fleet
    server: Server
    pool: Pool
    report: Callable[[RunProgress], None]
    patience_s: float
    audience: Audience | None = None
    measured: Measured = field(default_factory=Measured)
    _due: list[tuple[float, int]] = field(default_factory=list)
    _began: float = 0.0
    _began_cpu: float = 0.0
    _healthy_since: float | None = None

    def until_healthy(self) -> Summary:
        """Run for ``setup.seconds``, then up to ``patience_s`` until every agent is healthy or permanently refused.

        With an ``audience``, run for at most the same time, until all its agents are told.
        """
        setup = self.planner.setup
        self._due = [(self.planner.first(machine), machine.number) for machine in self.planner.machines]
        heapq.heapify(self._due)
        gc.collect()
        gc.freeze()  # otherwise each full collection would visit every agent and delay the heartbeats
        self._began, self._began_cpu = time.monotonic(), time.process_time()
        latest = setup.seconds + self.patience_s
        reported_at, reported = 0.0, 0
        try:
            while (now := self._now()) < latest:
                if self._is_over(now):
                    break
                self._send_due(now)
                wait_s = self._due[0][0] - self._now() if self._due else 0.1
                for exchange in self.pool.poll(min(max(wait_s, 0.0), 0.1)):
                    self._take(exchange)
                if now - reported_at >= 1:
                    requests = self.measured.requests
                    self.report(self._progress(now, (requests - reported) / (now - reported_at)))
                    reported_at, reported = now, requests
        finally:
            gc.unfreeze()
        return self.summary()

    def summary(self) -> Summary:
        """Return the results so far."""
        setup, planner, elapsed_s = self.planner.setup, self.planner, max(self._now(), 1e-9)
        is_healthy = planner.unhealthy == 0 and self._healthy_since is not None
        return Summary(
            scenario=setup.scenario,
            seed=setup.seed,
            agents=setup.agents,
            seconds=elapsed_s,
            measured=self.measured,
            healthy=setup.agents - planner.unhealthy,
            healthy_after_s=max(0.0, (self._healthy_since or 0.0) - setup.trouble_ends_s) if is_healthy else None,
            since="the trouble ended" if setup.trouble_ends_s else "the start",
            rollout={
                "activated": planner.activated,
                "failed on purpose": planner.failed_on_purpose,
                "withdrawn": planner.withdrawn,
                "turned away": planner.turned_away,
            },
            connections=self.pool.most_open,
            cpu_share=(time.process_time() - self._began_cpu) / elapsed_s,
        )

    def _is_over(self, now: float) -> bool:
        if self.audience is not None:
            return self.audience.is_told(self.planner.waiting)
        return now >= self.planner.setup.seconds and self.planner.is_settled

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _progress(self, now: float, rate: float) -> RunProgress:
        agents = self.planner.setup.agents
        return RunProgress(
            elapsed_s=now,
            rate=rate,
            healthy=agents - self.planner.unhealthy,
            agents=agents,
            in_flight=self.pool.in_flight - self.pool.waiting,
            waiting=self.pool.waiting,
            measured=self.measured,
        )

    def _send_due(self, now: float) -> None:
        due, machines = self._due, self.planner.machines
        while due and due[0][0] <= now:
            at, number = heapq.heappop(due)
            machine = machines[number]
            exchange = Exchange(number, self._request(machine, now), self._began + at, machine.traits.slow_send_s)
            if machine.action is ActionKind.WAIT:
                exchange.patience_s += machine.wait_s
            self.pool.submit(exchange)

    def _request(self, machine: Machine, now: float) -> bytes:
        agent_id, key = self.fleet.agents[machine.agent]
        path = f"{self.server.prefix}/api/v1/agents/{agent_id}"
        method, body = "GET", None
        match machine.action:
            case ActionKind.BEAT:
                method, path = "POST", f"{path}/heartbeat"
                body = json.dumps(self.planner.beat_body(machine, now)).encode()
            case ActionKind.FETCH:
                path = f"{path}/deployment"
            case ActionKind.WAIT:
                path = f"{path}/deployment?wait_s={machine.wait_s}"
            case ActionKind.DOWNLOAD:
                assert machine.offer is not None  # noqa: S101  only offers are downloaded
                path = self.server.prefix + machine.offer.bundle_url
            case ActionKind.REPORT:
                method, path = "POST", f"{path}/deployment"
                body = json.dumps(self.planner.report_body(machine)).encode()
        extra = f"If-None-Match: {machine.etag}\r\n" if machine.action is ActionKind.WAIT else ""
        if machine.traits.clock_offset_s:
            clock = datetime.now(UTC) + timedelta(seconds=machine.traits.clock_offset_s)
            extra += f"Date: {format_datetime(clock, usegmt=True)}\r\n"
        return write_request(method, path, host=self.server.host, token=key, body=body, extra=extra)

    def _take(self, exchange: Exchange) -> None:
        machine, response = self.planner.machines[exchange.owner], exchange.response
        document, retry_after_s, failure = None, None, exchange.failure
        if response is not None:
            retry_after_s = response.retry_after_s if response.status >= 300 else None
            if response.status == 200 and machine.action is not ActionKind.DOWNLOAD:
                try:
                    document = json.loads(response.body)
                except ValueError:
                    failure = "unreadable JSON"
        status = 0 if failure else exchange.status
        took_s = exchange.done_at - exchange.sent_at
        self.measured.count(machine.action, status, failure, took_s, has_retry_after=retry_after_s is not None)
        self.measured.lateness.add(exchange.sent_at - exchange.due)
        now = self._now()
        etag = response and response.header(b"etag")
        received = ServerResponse(status, document, retry_after_s, etag.decode() if etag else None)
        told = self.planner.told
        at = self.planner.after(machine, received, now)
        if self.audience is not None and self.planner.told > told and machine.offer is not None:
            offer = machine.offer
            self.audience.note(machine.number, offer.deployment_id, offer.offered_at or "", exchange.done_at)
        if at is not None:
            heapq.heappush(self._due, (at, machine.number))
        if self.planner.unhealthy:
            self._healthy_since = None
        elif self._healthy_since is None:
            self._healthy_since = now
