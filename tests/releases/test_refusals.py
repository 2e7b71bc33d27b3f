"""The delay of refusals, with a simulated clock, and the log lines and metrics of requests with unknown keys."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import structlog
from prometheus_client import REGISTRY

from apps.releases.api.agent_path import application
from apps.tenancy.credentials import Family, generate
from byteor_cloud.api import refusals
from byteor_cloud.ids import uuid7
from tests.front import FrontClient


class Clock:
    """A clock that only tests move forward, and that records sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.slept = 1000.0, list[float]()
        monkeypatch.setattr(refusals, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.slept.append))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_refusals_are_delayed_only_when_frequent(clock: Clock) -> None:
    pace = refusals.Pace()

    waits = [pace.wait() for _ in range(refusals.BURST + 3)]

    step = 1 / refusals.PER_S
    assert waits == pytest.approx([0.0] * refusals.BURST + [step, 2 * step, 3 * step])
    assert clock.slept == pytest.approx(waits[-3:])
    clock.now += 1000
    assert pace.wait() == 0


def test_refusal_delay_is_at_most_five_seconds(clock: Clock) -> None:
    pace = refusals.Pace()

    waits = [pace.wait() for _ in range(5000)]

    assert max(waits) == pytest.approx(refusals.LONGEST_S)


@pytest.mark.django_db
def test_delayed_refusals_are_counted_but_logged_in_one_line(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "refusals", refusals.Pace())
    monkeypatch.setattr(refusals, "BURST", 2)
    denied = {"status": "401"}
    before = REGISTRY.get_sample_value("byteor_denied_requests_total", denied) or 0
    client = FrontClient()
    headers = {"Authorization": f"Bearer {generate(Family.AGENT).text}"}

    with structlog.testing.capture_logs() as lines:
        responses = [client.get(f"/api/v1/agents/{uuid7()}/deployment", headers=headers) for _ in range(5)]

    assert [response.status_code for response in responses] == [401] * 5
    assert len({response.content.decode().partition('"instance"')[0] for response in responses}) == 1
    assert len(clock.slept) == 3
    assert [line["event"] for line in lines] == ["request", "request", "refusals_delayed"]
    assert REGISTRY.get_sample_value("byteor_denied_requests_total", denied) == before + 5
