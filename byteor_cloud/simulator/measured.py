"""The measurements of a run: counts by request and status, percentiles of times, and their output."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from byteor.engine.counted import count_of

_BUCKETS_PER_E = 50  # each bucket is 2 % wide
_LEAST_S = 1e-5


class Histogram:
    """Counts of durations in buckets that are 2 % wide, so that memory does not grow with the length of a run."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._count = 0
        self.longest_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._buckets[int(math.log(max(seconds, _LEAST_S) / _LEAST_S) * _BUCKETS_PER_E)] += 1
        self._count += 1
        self.longest_s = max(self.longest_s, seconds)

    def add_all(self, other: Histogram) -> None:
        """Count the durations of another histogram."""
        self._buckets += other._buckets
        self._count += other._count
        self.longest_s = max(self.longest_s, other.longest_s)

    def percentile_s(self, percent: float) -> float:
        """Return the given percentile of the durations; 0 if there are none."""
        rank, seen = self._count * percent / 100, 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(self.longest_s, _LEAST_S * math.exp((bucket + 1) / _BUCKETS_PER_E))
        return 0.0

    def milliseconds(self) -> dict[str, float]:
        """Return the usual percentiles and the maximum in milliseconds."""
        percentiles = {f"p{percent:g}": round(self.percentile_s(percent) * 1000, 1) for percent in (50, 90, 99, 99.9)}
        return percentiles | {"max": round(self.longest_s * 1000, 1)}


@dataclass
class Measured:
    """The counts and times of a run."""

    responses: dict[str, Counter[int]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    latency_by_kind: dict[str, Histogram] = field(default_factory=dict)
    lateness: Histogram = field(default_factory=Histogram)
    """How long requests waited in the simulator: for a free connection, or because the simulator was busy."""
    busy: int = 0
    """The number of 429 and 503 responses with ``Retry-After``, which are expected under load."""
    errors: int = 0
    """The number of other error responses, and of missing or unusable responses. Withdrawn offers are not counted."""

    def count(self, kind: str, status: int, failure: str, took_s: float, *, has_retry_after: bool) -> None:
        """Count the outcome of one request. ``status`` is 0 if there was no usable response; ``failure`` says why."""
        self.latency.add(took_s)
        self.latency_by_kind.setdefault(kind, Histogram()).add(took_s)
        self.responses.setdefault(kind, Counter())[status] += 1
        if failure:
            self.failures[failure] += 1
        if status in {429, 503} and has_retry_after:
            self.busy += 1
        elif status == 409 and kind != "enrollment":  # the server no longer makes the offer, which is not an error
            pass
        elif status not in {200, 201, 304}:
            self.errors += 1

    def add(self, other: Measured) -> None:
        """Add the counts and times of another part of the fleet."""
        for kind, statuses in other.responses.items():
            self.responses.setdefault(kind, Counter()).update(statuses)
        for kind, latency in other.latency_by_kind.items():
            self.latency_by_kind.setdefault(kind, Histogram()).add_all(latency)
        self.failures += other.failures
        self.latency.add_all(other.latency)
        self.lateness.add_all(other.lateness)
        self.busy += other.busy
        self.errors += other.errors

    @property
    def requests(self) -> int:
        """The number of completed requests."""
        return sum(sum(statuses.values()) for statuses in self.responses.values())

    def acknowledged(self, kind: str) -> int:
        """Return the number of requests of this kind with a 200 response."""
        return self.responses.get(kind, Counter())[200]


@dataclass(frozen=True, slots=True)
class Told:
    """The times, in seconds, until agents received an offer of the deployment, sorted."""

    agents: int
    after_request: Sequence[float] = ()
    after_offer: Sequence[float] = ()
    """Counted from the offer's ``offered_at``, which the server sets shortly before it commits the offer."""

    def document(self) -> dict[str, Any]:
        """Return the number of agents that were told and not told, and the percentiles of the times."""
        return {
            "told": len(self.after_request),
            "not_told": self.agents - len(self.after_request),
            "after_request_s": _seconds(self.after_request),
            "after_offer_s": _seconds(self.after_offer),
        }

    def lines(self) -> list[str]:
        """Return the results as text."""
        document = self.document()
        lines = [f"told        {document['told']:,} of {count_of(self.agents, 'agent')}"]
        for since in ("request", "offer"):
            times = document[f"after_{since}_s"].items()
            lines.append(f"  after the {since:<8}" + "  ".join(f"{name} {value:g} s" for name, value in times))
        return lines


def _seconds(times: Sequence[float]) -> dict[str, float]:
    if not times:
        return {}
    found = {f"p{percent}": times[math.ceil(len(times) * percent / 100) - 1] for percent in (50, 90, 99)}
    return {name: round(value, 3) for name, value in (found | {"max": times[-1]}).items()}


@dataclass(frozen=True, slots=True)
class Summary:
    """The results of a run."""

    scenario: str
    seed: int
    agents: int
    seconds: float
    measured: Measured
    healthy: int
    healthy_after_s: float | None
    """Seconds from ``since`` until every agent was healthy; None if some are not, and in the scenario ``poll``."""
    since: str
    rollout: dict[str, int]
    connections: int
    cpu_share: float
    """The average number of cores that the simulator used: at most 1 for each of its processes."""
    told: Told | None = None

    def document(self) -> dict[str, Any]:
        """Return the results as a JSON object."""
        measured = self.measured
        return {
            "scenario": self.scenario,
            "seed": self.seed,
            "agents": self.agents,
            "seconds": round(self.seconds, 1),
            "requests": measured.requests,
            "requests_per_s": round(measured.requests / self.seconds, 1),
            "heartbeats_acknowledged": measured.acknowledged("heartbeat"),
            "answers": {
                kind: {str(status): count for status, count in sorted(counts.items())}
                for kind, counts in measured.responses.items()
            },
            "busy": measured.busy,
            "errors": measured.errors,
            "failures": dict(measured.failures),
            "latency_ms": measured.latency.milliseconds(),
            "latency_by_request_ms": {
                kind: latency.milliseconds() for kind, latency in measured.latency_by_kind.items()
            },
            "lateness_ms": measured.lateness.milliseconds(),
            "healthy": self.healthy,
            "healthy_after_s": None if self.healthy_after_s is None else round(self.healthy_after_s, 1),
            "rollout": self.rollout,
            "connections": self.connections,
            "generator_cpu_share": round(self.cpu_share, 3),
            **({} if self.told is None else self.told.document()),
        }

    def lines(self) -> list[str]:
        """Return the results as text."""
        measured, document = self.measured, self.document()
        lines = [
            f"scenario    {self.scenario}, seed {self.seed}, {count_of(self.agents, 'agent')},"
            f" {count_of(self.connections, 'connection')}",
            f"requests    {measured.requests} in {self.seconds:.1f} s, {document['requests_per_s']:.0f} a second",
        ]
        for kind, counts in document["answers"].items():
            shown = (
                f"{count} x {'no usable response' if status == '0' else status}" for status, count in counts.items()
            )
            times = document["latency_by_request_ms"][kind]
            lines.append(f"  {kind:<10}{', '.join(shown)}; p50 {times['p50']:g} ms, p99 {times['p99']:g} ms")
        lines += [
            f"latency     {_times(document['latency_ms'])}",
            f"lateness    {_times(document['lateness_ms'])} (delay in the simulator before a request was sent)",
            f"errors      {measured.errors};"
            f" also {count_of(measured.busy, 'response')} with status 429 or 503 and Retry-After",
            *(f"  {reason}: {count}" for reason, count in measured.failures.most_common()),
            f"generator   {self.cpu_share * 100:.0f} % of one core",
        ]
        if any(self.rollout.values()):
            lines.append("offers      " + ", ".join(f"{count} {name}" for name, count in self.rollout.items()))
        if self.told is not None:
            lines += self.told.lines()
        after = "" if self.healthy_after_s is None else f", all of them {self.healthy_after_s:.1f} s after {self.since}"
        return [*lines, f"healthy     {self.healthy:,} of {count_of(self.agents, 'agent')}{after}"]


def combine(parts: Sequence[Summary], told: Told) -> Summary:
    """Return the results of a run in child processes, each of which simulated a part of the fleet."""
    measured = Measured()
    for part in parts:
        measured.add(part.measured)
    return replace(
        parts[0],
        agents=sum(part.agents for part in parts),
        seconds=max(part.seconds for part in parts),
        measured=measured,
        healthy=sum(part.healthy for part in parts),
        healthy_after_s=None,
        rollout={name: sum(part.rollout[name] for part in parts) for name in parts[0].rollout},
        connections=sum(part.connections for part in parts),
        cpu_share=sum(part.cpu_share for part in parts),
        told=told,
    )


def _times(milliseconds: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:g} ms" for name, value in milliseconds.items())
