"""The decisions of simulated agents, without I/O. They depend only on the setup, the time and the responses."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from byteor.agent.progress import OfferStatus
from byteor.agent.retry import backoff_s
from byteor.engine.machines import OfferAction

from .scenarios import (
    NORMAL,
    Purpose,
    Scenario,
    Setup,
    Traits,
    choose_traits,
    draw,
    draw_bits,
    first_beat_s,
    is_chosen_to_fail,
)

_ACTIVATION_S = (0.1, 1.0)
_BEATS_UNTIL_REPAIRED = 2
_BEATS_UP, _INTERVALS_DOWN = 3, 12
# The most and the fewest seconds that a poll waits. If a heartbeat is due in fewer seconds, the agent sends it early.
_MAX_WAIT_S, _LEAST_WAIT_S = 30, 3
# Statuses that a retry would not change. The reference agent stops only after a 401.
_FINAL_REFUSALS = {401, 403, 404}
_BUSY = {0, 408, 429}
"""Statuses, in addition to 5xx, after which the same request is retried. 0 means that there was no usable response."""


class ActionKind(StrEnum):
    """The kind of request that an agent sends."""

    BEAT = "heartbeat"
    FETCH = "offer"
    WAIT = "poll"
    DOWNLOAD = "bundle"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """A response. ``status`` is 0 if there was no usable one."""

    status: int
    document: Mapping[str, Any] | None = None
    retry_after_s: float | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """The bundle that the server offers an agent."""

    deployment_id: str
    action: str
    bundle_hash: str
    offered_at: str | None
    bundle_url: str

    @classmethod
    def read(cls, desired: Mapping[str, Any]) -> Offer:
        """Parse the offer in a response."""
        return cls(
            desired["deployment_id"],
            desired["action"],
            desired["bundle_hash"],
            desired.get("offered_at"),
            desired["bundle_url"],
        )


class Machine:
    """A simulated host with an agent. A clone has the ``agent`` number of another machine."""

    __slots__ = (
        "action", "agent", "attempts", "beat_due", "beats", "booted_s", "boots", "etag", "failed_once", "failures",
        "is_healthy", "is_waiting", "number", "offer", "report", "running", "settled", "traits", "unrepaired_beats",
        "wait_s",
    )  # fmt: skip

    def __init__(self, number: int, agent: int, traits: Traits) -> None:
        self.number, self.agent, self.traits = number, agent, traits
        self.action = ActionKind.BEAT
        self.boots = self.beats = self.failures = self.attempts = self.unrepaired_beats = 0
        self.booted_s = self.beat_due = 0.0
        self.is_healthy = self.is_waiting = False
        self.etag: str | None = None
        self.wait_s = 0
        self.offer: Offer | None = None
        self.report: OfferStatus | None = None
        self.settled: Offer | None = None
        self.failed_once: tuple[str, str] | None = None
        self.running: dict[str, str] | None = None


class Planner:
    """Decides each machine's next action and its time, and tracks which agents are healthy."""

    def __init__(self, setup: Setup, *, sends_boot_id: bool = False) -> None:
        self.setup = setup
        self._sends_boot_id = sends_boot_id
        chosen = (choose_traits(setup, number) for number in range(setup.agents))
        self.machines = [Machine(number, number, traits) for number, traits in enumerate(chosen)]
        stride = setup.agents // setup.clones if setup.clones else 0
        for clone in range(setup.clones):
            self.machines.append(Machine(setup.agents + clone, clone * stride, NORMAL))
        self.unhealthy = setup.agents
        self.activated = self.failed_on_purpose = self.withdrawn = self.permanently_refused = 0
        self.waiting = self.told = self.turned_away = 0
        self._manifests: dict[str, dict[str, str]] = {}

    @property
    def is_settled(self) -> bool:
        """Whether all agents are healthy, except those that the server refused permanently."""
        return self.unhealthy == self.permanently_refused

    def first(self, machine: Machine) -> float:
        """Return the time of the machine's first heartbeat."""
        machine.booted_s = first_beat_s(self.setup, machine.number)
        return machine.booted_s

    def after(self, machine: Machine, response: ServerResponse, now: float) -> float | None:
        """Set the machine's next action after a response. Return its time, or None if the machine stops permanently."""
        self._set_waiting(machine, False)
        if self._is_clone(machine) and now >= self.setup.trouble_ends_s:
            return None
        if response.status in _BUSY or response.status >= 500:
            self._set_healthy(machine, False)
            return now + self._backoff_s(machine, response)
        if response.status in _FINAL_REFUSALS:
            self._set_healthy(machine, False)
            self.permanently_refused += not self._is_clone(machine)
            return None
        machine.failures = 0
        match machine.action:
            case ActionKind.BEAT:
                return self._after_beat(machine, response, now)
            case ActionKind.FETCH | ActionKind.WAIT if self.setup.scenario is Scenario.POLL:
                return self._after_poll(machine, response, now)
            case ActionKind.FETCH | ActionKind.WAIT:
                return self._after_fetch(machine, response, now)
            case ActionKind.DOWNLOAD:
                return self._after_download(machine, response, now)
            case ActionKind.REPORT:
                return self._after_report(machine, response, now)

    # Heartbeats

    def beat_body(self, machine: Machine, now: float) -> dict[str, Any]:
        """Return the body of the machine's next heartbeat."""
        body: dict[str, Any] = {
            "status": self._status(machine),
            "agent_version": "simulated",
            "uptime_s": self._uptime_s(machine, now),
            "active": machine.running,
            "resources": {
                "cpu_percent": draw_bits(self.setup.seed, machine.number, Purpose.USAGE, machine.beats) % 1000 / 10,
                "memory_bytes": 100_000_000,
                "disk_free_bytes": 50_000_000_000,
            },
        }
        if self._sends_boot_id:
            body["boot_id"] = f"{draw_bits(self.setup.seed, machine.number, Purpose.BOOT, machine.boots):016x}"
        return body

    @staticmethod
    def _status(machine: Machine) -> str:
        if machine.beats == 0:
            return "starting"
        if machine.unrepaired_beats:
            return "degraded" if machine.running else "failed"
        return "healthy"

    def _uptime_s(self, machine: Machine, now: float) -> float:
        """Return the agent's uptime by the machine's clock, which may jump. The result is never negative."""
        traits = machine.traits
        # The clock jumps halfway through the time in which agents misbehave.
        jump_s = traits.clock_offset_s if now > self.setup.trouble_ends_s / 2 else 0.0
        return round(max(0.0, (now - machine.booted_s) * traits.clock_rate + jump_s), 1)

    def _after_beat(self, machine: Machine, response: ServerResponse, now: float) -> float:
        document = response.document
        if response.status != 200 or document is None:  # a rejected body is an error of the simulator
            self._set_healthy(machine, False)
            return now + self._backoff_s(machine, response)
        was_healthy = self._status(machine) == "healthy"
        machine.beats += 1
        machine.unrepaired_beats = max(0, machine.unrepaired_beats - 1)
        desired = document["desired"]
        if desired is not None and (offer := Offer.read(desired)) != machine.settled:
            self._set_healthy(machine, False)
            machine.offer, machine.action = offer, ActionKind.FETCH
            return now
        self._set_healthy(machine, was_healthy)
        if machine.traits.flaps and machine.beats > self._beats_up(machine) and now < self.setup.trouble_ends_s:
            return self._go_down(machine, now)
        wait_s: float = document["next_heartbeat_s"] * self.setup.interval_scale
        machine.beat_due = now + wait_s / machine.traits.clock_rate
        return self._plan_poll(machine, now) if self.setup.scenario is Scenario.POLL else machine.beat_due

    def _beats_up(self, machine: Machine) -> int:
        return 1 + draw_bits(self.setup.seed, machine.number, Purpose.UP, machine.boots) % _BEATS_UP

    def _go_down(self, machine: Machine, now: float) -> float:
        """Take the machine down for up to 12 intervals, so that some agents become stale and some offline."""
        self._set_healthy(machine, False)
        interval_s = self.setup.scaled_interval_s
        down_s = interval_s * _INTERVALS_DOWN * draw(self.setup.seed, machine.number, Purpose.DOWN, machine.boots)
        latest = self.setup.trouble_ends_s + interval_s * draw(self.setup.seed, machine.number, Purpose.RETURN)
        machine.boots += 1
        machine.beats = 0
        machine.booted_s = min(now + down_s, latest)
        return machine.booted_s

    # Polls

    def _plan_poll(self, machine: Machine, now: float) -> float:
        """Let the agent poll for an offer, or send its next heartbeat now if that is due soon."""
        left_s = machine.beat_due - now
        if left_s < _LEAST_WAIT_S:
            machine.action = ActionKind.BEAT
        elif machine.etag is None:
            machine.action = ActionKind.FETCH
        else:
            machine.action, machine.wait_s = ActionKind.WAIT, min(_MAX_WAIT_S, int(left_s))
            self._set_waiting(machine, True)
        return now

    def _after_poll(self, machine: Machine, response: ServerResponse, now: float) -> float:
        if response.status == 304:
            if response.retry_after_s is None:
                return self._plan_poll(machine, now)
            self.turned_away += 1
            return now + response.retry_after_s
        desired = response.document and response.document["desired"]
        machine.etag = response.etag
        if response.status != 200 or not desired or Offer.read(desired) == machine.settled:
            return self._plan_poll(machine, now)
        self._set_healthy(machine, False)
        self.told += 1
        return self._after_fetch(machine, response, now)

    def _set_waiting(self, machine: Machine, is_waiting: bool) -> None:
        self.waiting += is_waiting - machine.is_waiting
        machine.is_waiting = is_waiting

    # Offers

    def report_body(self, machine: Machine) -> dict[str, Any]:
        """Return the body of the machine's next report."""
        offer = machine.offer
        assert offer is not None  # noqa: S101  only offers are reported
        body = {"deployment_id": offer.deployment_id, "status": machine.report, "bundle_hash": offer.bundle_hash}
        if machine.report == OfferStatus.FAILED:
            body["detail"] = "The simulated host failed on purpose."
        return body

    def _after_fetch(self, machine: Machine, response: ServerResponse, now: float) -> float:
        desired = response.document and response.document["desired"]
        if response.status != 200 or not desired:
            return self._withdraw(machine, now)
        machine.offer = offer = Offer.read(desired)
        if offer.bundle_hash not in self._manifests:
            self._manifests[offer.bundle_hash] = _read_manifest(offer, desired["envelope"])
        return self._plan_report(machine, OfferStatus.DOWNLOADING, now)

    def _after_download(self, machine: Machine, response: ServerResponse, now: float) -> float:
        if response.status != 200:
            return self._withdraw(machine, now)
        return self._plan_report(machine, OfferStatus.ACTIVATING, now)

    def _after_report(self, machine: Machine, response: ServerResponse, now: float) -> float:
        offer = machine.offer
        assert offer is not None  # noqa: S101  only offers are reported
        if response.status != 200:
            return self._withdraw(machine, now)
        match machine.report:
            case OfferStatus.DOWNLOADING:
                machine.action = ActionKind.DOWNLOAD
                return now
            case OfferStatus.ACTIVATING:
                least, most = _ACTIVATION_S
                luck = draw(self.setup.seed, machine.number, Purpose.ACTIVATION, machine.attempts)
                machine.attempts += 1
                takes_s = (least + (most - least) * luck) * min(1.0, self.setup.interval_scale)
                return self._plan_report(machine, self._outcome(machine, offer), now + takes_s)
            case OfferStatus.FAILED:
                machine.failed_once = (offer.deployment_id, offer.bundle_hash)
                machine.unrepaired_beats = _BEATS_UNTIL_REPAIRED
                self.failed_on_purpose += 1
            case _:
                machine.running = self._manifests[offer.bundle_hash]
                machine.unrepaired_beats = 0
                self.activated += 1
        machine.settled, machine.offer, machine.action = offer, None, ActionKind.BEAT
        return now

    def _plan_report(self, machine: Machine, status: OfferStatus, at: float) -> float:
        machine.action, machine.report = ActionKind.REPORT, status
        return at

    def _outcome(self, machine: Machine, offer: Offer) -> OfferStatus:
        """Return the final status to report. A machine that was chosen to fail does so only at its first attempt."""
        if offer.action == OfferAction.ROLLBACK:
            return OfferStatus.ROLLED_BACK
        is_chosen = is_chosen_to_fail(self.setup, machine.number, offer.bundle_hash)
        is_first = machine.failed_once != (offer.deployment_id, offer.bundle_hash)
        return OfferStatus.FAILED if is_chosen and is_first else OfferStatus.ACTIVE

    def _withdraw(self, machine: Machine, now: float) -> float:
        """Drop an offer that the server no longer makes. The next heartbeat's response has the current one, if any."""
        self.withdrawn += 1
        # Ignore the same offer in later heartbeats, because it would be rejected again.
        machine.settled, machine.offer, machine.action = machine.offer, None, ActionKind.BEAT
        return now + self._pause_s(machine)

    # Health and delays

    def _is_clone(self, machine: Machine) -> bool:
        return machine.number >= self.setup.agents

    def _set_healthy(self, machine: Machine, is_healthy: bool) -> None:
        if machine.is_healthy != is_healthy and not self._is_clone(machine):
            machine.is_healthy = is_healthy
            self.unhealthy += -1 if is_healthy else 1

    def _backoff_s(self, machine: Machine, response: ServerResponse) -> float:
        """Return the delay after a failure, computed by the reference agent's function."""
        machine.failures += 1
        jitter = 0.1 + 0.9 * draw(self.setup.seed, machine.number, Purpose.BACKOFF, machine.failures)
        return backoff_s(machine.failures - 1, response.retry_after_s or 0.0, jitter)

    def _pause_s(self, machine: Machine) -> float:
        """Return a short delay, which prevents a storm of heartbeats while the server withdraws offers."""
        machine.attempts += 1
        return draw(self.setup.seed, machine.number, Purpose.RETURN, machine.attempts)


def _read_manifest(offer: Offer, envelope: Mapping[str, Any]) -> dict[str, str]:
    """Return the offered bundle in the form in which heartbeats describe the running bundle.

    Its deployment id and spec hash come from the bundle's signed statement. Simulated agents do not verify signatures:
    that would measure the simulator instead of the server.
    """
    manifest = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    return {
        "deployment_id": manifest["deployment_id"],
        "bundle_hash": offer.bundle_hash,
        "spec_hash": manifest["spec_hash"],
    }
