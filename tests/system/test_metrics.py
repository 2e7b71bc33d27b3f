"""Tests of /metrics in one process and in several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from django_prometheus.middleware import Metrics
from prometheus_client.parser import text_string_to_metric_families

from apps.fleet.models import Heartbeat
from apps.operations import metrics
from apps.releases.api.agent_path import exchange
from apps.releases.jobs import BuildBundle
from apps.tenancy.models import AuditSeal
from apps.tenancy.services import ledger
from byteor_cloud.worker.jobs import enqueue
from tests.races import Race, concurrently
from tests.system.conftest import Installation
from tests.worlds import Api, World, report, run_jobs

__all__ = ["concurrently"]

pytestmark = pytest.mark.django_db
type Series = dict[str, float]


@pytest.fixture(autouse=True, scope="module")
def _discard_earlier_requests() -> None:
    """Discard the thousands of series from requests that tests of other modules sent in this process.

    Otherwise each response would contain them, and writing and parsing them would take a second.
    """
    exchange._meter.cache_clear()
    for metric in vars(Metrics.get_instance()).values():
        if metric._labelnames:
            metric.clear()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the cache of the domain series, which may contain the series of another test."""
    monkeypatch.setattr(metrics, "CACHE_S", -1.0)


def parsed(text: str) -> Series:
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape() -> Series:
    """Return the current series instead of those that an earlier scrape cached for a second."""
    metrics.TEXT.discard()
    response = Client().get("/metrics")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    return parsed(response.content.decode())


def domain(series: Series, name: str) -> Series:
    """Return the nonzero series of one metric by label."""
    return {
        key.removeprefix(name).strip("{}"): value for key, value in series.items() if key.startswith(name) and value
    }


def test_agents_deployments_approvals_and_jobs_are_counted(world: World, other: World) -> None:
    agent, api = world.agent(name="first")
    world.agent(name="second")
    other.agent(name="elsewhere")
    deployment = world.deployment(world.bundle())
    world.agent(world.prod)
    world.deployment(world.bundle(world.prod))
    run_jobs()
    report(api, agent, "active")
    enqueue(BuildBundle(deployment_id="1"), organization=None)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE procrastinate_events SET at = at - interval '90 seconds'")

    series = scrape()

    deployment.refresh_from_db()
    assert deployment.status == "deploying"
    assert domain(series, "byteor_agents{") == {"online": 4}
    assert domain(series, "byteor_deployments{") == {"deploying": 1, "pending_approval": 1}
    assert domain(series, "byteor_approvals{") == {"pending": 1}
    assert series["byteor_agents_drifted"] == 2
    assert series["byteor_agents_drained"] == series["byteor_agents_cloned"] == 0
    assert series["byteor_jobs{todo}"] == 2
    assert 90 <= series["byteor_jobs_oldest_waiting_seconds"] < 95
    assert series["byteor_artifacts{received}"] == series["byteor_replays{queued}"] == 0


def test_drained_and_cloned_agents_are_counted(world: World) -> None:
    drained, _ = world.agent(name="drained")
    cloned, api = world.agent(name="cloned")
    world.agent(name="neither")
    world.operator.api.post(world.path(rest=f"/agents/{drained.pk}/drain"))
    for boot_id in "aba":
        beat = {"status": "healthy", "agent_version": "1", "boot_id": boot_id}
        assert api.post(f"/api/v1/agents/{cloned.pk}/heartbeat", beat).status_code == 200

    series = scrape()

    assert series["byteor_agents_drained"] == series["byteor_agents_cloned"] == 1


def test_domain_series_exist_and_are_zero_in_new_installation(db: None) -> None:
    series = scrape()

    names = tuple(family.name for family in metrics.REGISTRY.collect())
    counted = {key: value for key, value in series.items() if key.startswith(names)}
    assert len(names) == 12
    assert {k: v for k, v in counted.items() if v} == {}
    assert len([key for key in counted if key.startswith("byteor_deployments{")]) == 9
    assert {"byteor_agents{online}", "byteor_jobs{failed}", "byteor_replays{diverged}"} <= set(counted)
    assert {f"byteor_denied_requests_total{{{status}}}" for status in (401, 403, 429)} <= set(series)


@pytest.mark.parametrize(
    ("silence_s", "liveness"), [(29, "online"), (31, "stale"), (99, "stale"), (101, "offline")], ids=str
)
def test_liveness_metrics_use_heartbeat_interval_of_environment(
    world: World, silence_s: int, liveness: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    brisk = world.environment("dev", "brisk", heartbeat_interval_s=10)
    now = timezone.now()
    seen = now - timedelta(seconds=silence_s)
    for environment in (brisk, world.dev):
        agent, _ = world.agent(environment)
        Heartbeat.objects.filter(agent=agent).update(last_seen_at=seen)
    monkeypatch.setattr(timezone, "now", lambda: now)  # otherwise the liveness could change during a slow test

    default = "online" if silence_s < 90 else "stale"
    expected = {liveness: 1} | {default: 2 if default == liveness else 1}
    assert domain(scrape(), "byteor_agents{") == expected


def test_decommissioned_agents_and_deleted_environments_are_not_counted(
    world: World, run_jobs: Callable[[], int]
) -> None:
    from apps.fleet.services import agents as fleet
    from apps.tenancy.services import organizations

    world.agent(name="kept")
    gone, _ = world.agent(name="gone")
    world.agent(world.staging)
    fleet.decommission(gone, actor=world.admin.actor)
    organizations.delete(world.staging, kind="environment", actor=world.admin.actor)

    assert domain(scrape(), "byteor_agents{") == {"online": 1}


def test_unsealed_audit_events_are_counted(world: World, other: World) -> None:
    total = AuditSeal.objects.count() + scrape()["byteor_audit_unsealed_events"]
    assert total > 20

    ledger.seal_chain(world.organization.pk)
    behind = scrape()["byteor_audit_unsealed_events"]
    ledger.seal_all()

    assert 0 < behind < total
    assert scrape()["byteor_audit_unsealed_events"] == 0
    other.environment("dev", "one more")
    assert scrape()["byteor_audit_unsealed_events"] == 1


def test_concurrent_scrapers_share_one_collection_of_metrics(
    concurrently: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, collections = threading.Semaphore(0), list[int]()
    read = metrics._read

    def slow_read() -> Any:
        collections.append(1)
        if len(collections) == 1:
            for _ in range(10):  # so that all requests arrive before the first collection ends
                arrived.acquire()
        return read()

    monkeypatch.setattr(metrics, "_read", slow_read)

    def get() -> bytes:
        arrived.release()
        return Client().get("/metrics").content

    responses = concurrently(*[get] * 10)

    assert len(collections) == 1
    assert len(set(responses)) == 1
    assert parsed(responses[0].decode())["byteor_agents{online}"] == 0


def test_scrapers_of_one_process_share_collection_for_about_one_second(installation: Installation) -> None:
    installation.serve(API_PROCESSES="1", RATE_LIMIT="off")
    began = time.monotonic()

    with ThreadPoolExecutor(10) as pool:
        texts = list(pool.map(lambda _: installation.get("/metrics").text, range(100)))

    # Each collection counts all earlier requests, so no two collections have the same text.
    collections = len(set(texts))
    assert collections <= 2 + (time.monotonic() - began)


def test_denials_and_heartbeats_are_counted(world: World) -> None:
    agent, api = world.agent()
    heartbeat = {"status": "healthy", "agent_version": "1", "active": None}
    before = scrape()

    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", heartbeat).status_code == 200
    assert Api("bor_agt_wrong").post(f"/api/v1/agents/{agent.pk}/heartbeat", heartbeat).status_code == 401
    assert Api(None).get("/api/v1/me").status_code == 401
    assert world.viewer.api.post(world.path(rest="/drafts"), {}).status_code == 403
    after = scrape()

    changed = {
        key: after[key] - before[key]
        for key in after
        if key.startswith(("byteor_denied_requests_total", "byteor_heartbeats_total")) and after[key] != before[key]
    }
    assert changed == {
        "byteor_heartbeats_total": 1,
        "byteor_denied_requests_total{401}": 2,
        "byteor_denied_requests_total{403}": 1,
    }


def test_metrics_contain_no_tenant_names_or_ids(world: World) -> None:
    world.agent(name="agent-name")
    world.deployment(world.bundle())
    world.admin.api.get(world.path(rest="/agents"))
    metrics.TEXT.discard()

    text = Client().get("/metrics").content.decode()

    for word in ("acme", "trading", "agent-name", "quotes", str(world.organization.pk), str(world.dev.pk)):
        assert word not in text


def test_collection_takes_15_statements_and_is_cached(
    world: World, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "CACHE_S", 60.0)
    collector = metrics.DomainCollector()

    with django_assert_num_queries(15):  # with the savepoint and the statement timeout
        first = list(collector.collect())
    with django_assert_num_queries(0):
        assert list(collector.collect()) == first


def test_metrics_omit_domain_series_when_query_is_too_slow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "TIMEOUT_MS", 20)
    monkeypatch.setattr(metrics, "_JOBS", "SELECT 'todo', 1 FROM pg_sleep(5)")

    series = scrape()

    assert "byteor_agents{online}" not in series
    assert "byteor_heartbeats_total" in series


def test_process_series_are_served_without_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection, "cursor", refuse)

    series = scrape()

    assert "byteor_heartbeats_total" in series
    assert "process_cpu_seconds_total" in series
    assert not domain(series, "byteor_agents")


SEVERAL = """
import os, sys
from byteor_cloud.server import counters
shared = counters.share_counters(2)
import django
django.setup()
from django.test import Client

def child(part):
    pid = os.fork()
    if pid == 0:
        shared.use(part)
        Client(headers={"Authorization": "Bearer nonsense"}).get("/api/v1/me")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

for _ in range(3):
    part = shared.reserve_part()
    child(part)
    shared.release_part(part)
child(shared.reserve_part())
child(shared.reserve_part())
sys.stdout.write(Client().get("/metrics").content.decode())
"""


@pytest.mark.django_db(transaction=True)
def test_series_are_summed_over_processes() -> None:
    url = connection.settings_dict["HOST"]
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "byteor_cloud.settings",
        "BYTEOR_EMBEDDED_DATABASE_URL": f"postgresql://byteor_cloud@/{connection.settings_dict['NAME']}?host={url}"
        f"&port={connection.settings_dict['PORT'] or 5432}",
    }

    done = subprocess.run(
        [sys.executable, "-c", SEVERAL],
        env=environment, cwd=Path(metrics.__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    series = parsed(done.stdout)
    assert series["byteor_denied_requests_total{401}"] == 5
    assert series["byteor_denied_requests_total{429}"] == 0
    assert series["byteor_django_http_requests_body_total_bytes_count"] == 6
    assert series["byteor_django_http_requests_body_total_bytes_bucket{+Inf}"] == 6
    assert series["byteor_agents{online}"] == 0


def test_invented_http_methods_create_no_series(world: World) -> None:
    """If each method had its own series, clients could create series without limit."""
    world.viewer.api.get("/api/v1/me")
    client = Client()
    for path in ("/api/v1/me", "/nowhere"):
        client.generic("X-FIRST", path)
    before = set(scrape())

    for number in range(20):
        for path in ("/api/v1/me", "/nowhere"):
            client.generic(f"X-METHOD-{number}", path)

    assert set(scrape()) == before
    assert not any("X-" in key for key in before)
