"""The decisions of simulated agents. Pure: the time and the responses are arguments, and no socket is touched."""

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

from .scenarios import NORMAL, Purpose, Setup, Traits, choose_traits, draw, draw_bits, first_beat_s, is_chosen_to_fail

_ACTIVATION_S = (0.1, 1.0)
_BEATS_UNTIL_REPAIRED = 2
_BEATS_UP, _INTERVALS_DOWN = 3, 12
# These do not change by repetition. The reference agent stops too.
_FINAL_REFUSALS = {401, 403, 404}
_BUSY = {0, 408, 429}
"""Statuses after which the same request is repeated, besides 5xx; 0 means that there was no response."""


class ActionKind(StrEnum):
    """What an agent asks the server."""

    BEAT = "heartbeat"
    FETCH = "offer"
    DOWNLOAD = "bundle"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. ``status`` is 0 if there was none."""

    status: int
    document: Mapping[str, Any] | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server wants an agent to run."""

    deployment_id: str
    action: str
    bundle_hash: str
    offered_at: str | None
    bundle_url: str

    @classmethod
    def read(cls, desired: Mapping[str, Any]) -> Offer:
        """Read the offer of a response."""
        return cls(
            desired["deployment_id"],
            desired["action"],
            desired["bundle_hash"],
            desired.get("offered_at"),
            desired["bundle_url"],
        )


class Machine:
    """A host that runs an agent. A clone has the ``agent`` of another machine."""

    __slots__ = (
        "action", "agent", "attempts", "beats", "booted_s", "boots", "failed_once", "failures",
        "is_well", "number", "offer", "report", "running", "settled", "traits", "unrepaired_beats",
    )  # fmt: skip

    def __init__(self, number: int, agent: int, traits: Traits) -> None:
        self.number, self.agent, self.traits = number, agent, traits
        self.action = ActionKind.BEAT
        self.boots = self.beats = self.failures = self.attempts = self.unrepaired_beats = 0
        self.booted_s = 0.0
        self.is_well = False
        self.offer: Offer | None = None
        self.report: OfferStatus | None = None
        self.settled: Offer | None = None
        self.failed_once: tuple[str, str] | None = None
        self.running: dict[str, str] | None = None


class Planner:
    """Decides for each machine what it does next and when, and knows which machines are healthy."""

    def __init__(self, setup: Setup, *, sends_boot_id: bool = False) -> None:
        self.setup = setup
        self._sends_boot_id = sends_boot_id
        chosen = (choose_traits(setup, number) for number in range(setup.agents))
        self.machines = [Machine(number, number, traits) for number, traits in enumerate(chosen)]
        stride = setup.agents // setup.clones if setup.clones else 0
        for clone in range(setup.clones):
            self.machines.append(Machine(setup.agents + clone, clone * stride, NORMAL))
        self.unwell = setup.agents
        self.activated = self.failed_on_purpose = self.withdrawn = self.refused_for_good = 0
        self._manifests: dict[str, dict[str, str]] = {}

    @property
    def is_settled(self) -> bool:
        """Whether every agent is healthy, except for those whose keys the server refused."""
        return self.unwell == self.refused_for_good

    def first(self, machine: Machine) -> float:
        """Return when the machine sends its first heartbeat."""
        machine.booted_s = first_beat_s(self.setup, machine.number)
        return machine.booted_s

    def after(self, machine: Machine, answer: Answer, now: float) -> float | None:
        """Set the machine's next action after a response; return its time, or None if the machine stops for good."""
        if self._is_clone(machine) and now >= self.setup.trouble_ends_s:
            return None
        if answer.status in _BUSY or answer.status >= 500:
            self._set_well(machine, False)
            return now + self._backoff_s(machine, answer)
        if answer.status in _FINAL_REFUSALS:
            self._set_well(machine, False)
            self.refused_for_good += not self._is_clone(machine)
            return None
        machine.failures = 0
        match machine.action:
            case ActionKind.BEAT:
                return self._after_beat(machine, answer, now)
            case ActionKind.FETCH:
                return self._after_fetch(machine, answer, now)
            case ActionKind.DOWNLOAD:
                return self._after_download(machine, answer, now)
            case ActionKind.REPORT:
                return self._after_report(machine, answer, now)

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
        """Return the seconds since the start by the machine's clock, which may jump but not make them negative."""
        traits = machine.traits
        # The clock is set right, or wrong, in the middle of the time in which things go wrong.
        jump_s = traits.clock_offset_s if now > self.setup.trouble_ends_s / 2 else 0.0
        return round(max(0.0, (now - machine.booted_s) * traits.clock_rate + jump_s), 1)

    def _after_beat(self, machine: Machine, answer: Answer, now: float) -> float:
        document = answer.document
        if answer.status != 200 or document is None:  # a refusal of the body is an error of this program
            self._set_well(machine, False)
            return now + self._backoff_s(machine, answer)
        was_healthy = self._status(machine) == "healthy"
        machine.beats += 1
        machine.unrepaired_beats = max(0, machine.unrepaired_beats - 1)
        desired = document["desired"]
        if desired is not None and (offer := Offer.read(desired)) != machine.settled:
            self._set_well(machine, False)
            machine.offer, machine.action = offer, ActionKind.FETCH
            return now
        self._set_well(machine, was_healthy)
        if machine.traits.flaps and machine.beats > self._beats_up(machine) and now < self.setup.trouble_ends_s:
            return self._go_down(machine, now)
        wait_s: float = document["next_heartbeat_s"] * self.setup.interval_scale
        return now + wait_s / machine.traits.clock_rate

    def _beats_up(self, machine: Machine) -> int:
        return 1 + draw_bits(self.setup.seed, machine.number, Purpose.UP, machine.boots) % _BEATS_UP

    def _go_down(self, machine: Machine, now: float) -> float:
        """Let the machine disappear for up to 12 intervals, so that some agents become stale and some offline."""
        self._set_well(machine, False)
        interval_s = self.setup.scaled_interval_s
        down_s = interval_s * _INTERVALS_DOWN * draw(self.setup.seed, machine.number, Purpose.DOWN, machine.boots)
        latest = self.setup.trouble_ends_s + interval_s * draw(self.setup.seed, machine.number, Purpose.RETURN)
        machine.boots += 1
        machine.beats = 0
        machine.booted_s = min(now + down_s, latest)
        return machine.booted_s

    # Offers

    def report_body(self, machine: Machine) -> dict[str, Any]:
        """Return the body of the machine's next report."""
        offer = machine.offer
        assert offer is not None  # noqa: S101  a report is planned only about an offer
        body = {"deployment_id": offer.deployment_id, "status": machine.report, "bundle_hash": offer.bundle_hash}
        if machine.report == OfferStatus.FAILED:
            body["detail"] = "The simulated host failed on purpose."
        return body

    def _after_fetch(self, machine: Machine, answer: Answer, now: float) -> float:
        desired = answer.document and answer.document["desired"]
        if answer.status != 200 or not desired:
            return self._withdraw(machine, now)
        machine.offer = offer = Offer.read(desired)
        if offer.bundle_hash not in self._manifests:
            self._manifests[offer.bundle_hash] = _read_manifest(offer, desired["envelope"])
        return self._plan_report(machine, OfferStatus.DOWNLOADING, now)

    def _after_download(self, machine: Machine, answer: Answer, now: float) -> float:
        if answer.status != 200:
            return self._withdraw(machine, now)
        return self._plan_report(machine, OfferStatus.ACTIVATING, now)

    def _after_report(self, machine: Machine, answer: Answer, now: float) -> float:
        offer = machine.offer
        assert offer is not None  # noqa: S101  a report is planned only about an offer
        if answer.status != 200:
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
        """Return the last report on an offer. A chosen machine fails once: a second attempt succeeds."""
        if offer.action == OfferAction.ROLLBACK:
            return OfferStatus.ROLLED_BACK
        is_chosen = is_chosen_to_fail(self.setup, machine.number, offer.bundle_hash)
        is_first = machine.failed_once != (offer.deployment_id, offer.bundle_hash)
        return OfferStatus.FAILED if is_chosen and is_first else OfferStatus.ACTIVE

    def _withdraw(self, machine: Machine, now: float) -> float:
        """Forget an offer that the server no longer makes. The next heartbeat brings the one that it makes now."""
        self.withdrawn += 1
        # Handled again, the same offer would be refused again.
        machine.settled, machine.offer, machine.action = machine.offer, None, ActionKind.BEAT
        return now + self._pause_s(machine)

    # Health and delays

    def _is_clone(self, machine: Machine) -> bool:
        return machine.number >= self.setup.agents

    def _set_well(self, machine: Machine, is_well: bool) -> None:
        if machine.is_well != is_well and not self._is_clone(machine):
            machine.is_well = is_well
            self.unwell += -1 if is_well else 1

    def _backoff_s(self, machine: Machine, answer: Answer) -> float:
        """Return the delay after a failure, by the rule of the reference agent."""
        machine.failures += 1
        jitter = 0.1 + 0.9 * draw(self.setup.seed, machine.number, Purpose.BACKOFF, machine.failures)
        return backoff_s(machine.failures - 1, answer.retry_after_s or 0.0, jitter)

    def _pause_s(self, machine: Machine) -> float:
        """Return a short delay, so that a server that withdraws offers gets no storm of heartbeats."""
        machine.attempts += 1
        return draw(self.setup.seed, machine.number, Purpose.RETURN, machine.attempts)


def _read_manifest(offer: Offer, envelope: Mapping[str, Any]) -> dict[str, str]:
    """Return what a heartbeat says of a running bundle, from the signed statement about the bundle.

    Simulated agents do not check signatures: that would measure this program and not the server.
    """
    manifest = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    return {
        "deployment_id": manifest["deployment_id"],
        "bundle_hash": offer.bundle_hash,
        "spec_hash": manifest["spec_hash"],
    }
