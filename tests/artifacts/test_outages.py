"""The worker while replays block. Jobs and agent timeouts while the blob store is unavailable."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import children
from apps.fleet.models import Agent
from apps.releases.models import Approval, Deployment, KnownBad
from apps.releases.services import blockers, explanations
from apps.tenancy.models import AuditEvent, AuditSeal
from byteor_cloud.worker.process import Worker
from tests.artifacts import incidents
from tests.artifacts.incidents import incident, ingested
from tests.patience import PATIENCE_S, wait_until
from tests.releases import stories
from tests.worlds import World, report, run_jobs

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("concurrently")]
ROUNDS = 16  # attempts of a job, whose growing delays add up to more than ten minutes


# -- replays that block


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.Event]]:
    """Make every replay block until the test ends. Yields a list that grows by one event for each started replay."""
    is_over, started = threading.Event(), []

    def block(*_: Any, **__: Any) -> Any:
        started.append(threading.Event())
        is_over.wait(PATIENCE_S)
        raise RuntimeError("the test is over")

    monkeypatch.setattr(children, "run_in_child", block)
    yield started
    is_over.set()


def unsealed(world: World) -> int:
    own = AuditEvent.objects.filter(organization=world.organization)
    return own.exclude(pk__in=AuditSeal.objects.values("event_id")).count()


def test_blocked_replay_does_not_delay_jobs_of_another_organization(blocked: list[threading.Event]) -> None:
    acme, umbrella = World("acme"), World("umbrella")
    agent, _ = acme.agent()
    bundle = acme.bundle()
    spec = bundle.version.spec_kv
    theirs = ingested(acme, incident(spec))
    artifact = ingested(umbrella, incident(umbrella.version().spec_kv))
    for _ in range(8):
        assert umbrella.operator.api.post(
            umbrella.path(rest=f"/artifacts/{artifact.pk}/replay"), {}
        ).status_code == 202  # fmt: skip
    worker = Worker(grace_s=0.5)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: blocked)
        deployment = acme.deployment(bundle)
        wait_until(lambda: Deployment.objects.get(pk=deployment.pk).status == "deploying")
        assert stories.desired(agent) == (deployment.pk, "activate")
        wait_until(lambda: unsealed(acme) == 0)
        # Ingest jobs and replays of another organization do not wait for the blocked replay.
        body = incident(spec, quotes_in=incidents.journal([b"{}"]))
        agent_two, api_two = acme.agent(name="two")
        incidents.upload(api_two, agent_two, body, kind="incident_bundle")
        wait_until(lambda: not Artifact.objects.filter(status="received").exists())
        acme.operator.api.post(acme.path(rest=f"/artifacts/{theirs.pk}/replay"), {})
        wait_until(lambda: Replay.objects.filter(environment=acme.dev, status="running").exists())
        assert Replay.objects.filter(environment=umbrella.dev, status="running").count() == 1
        assert len(blocked) == 2
    finally:
        worker.stop()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()  # blocked replays do not delay the worker's shutdown
    assert set(Replay.objects.values_list("status", flat=True)) == {"running", "queued"}


# -- an unavailable blob store


class UnavailableStore:
    """Replaces the blob store's folder with a file while the block runs, so that reads and writes fail."""

    def __init__(self, store: Path) -> None:
        self.store, self.aside = store, store.with_name(f"{store.name}-aside")

    def __enter__(self) -> None:
        self.store.rename(self.aside)
        self.store.write_text("not a folder")

    def __exit__(self, *_: object) -> None:
        self.store.unlink()
        self.aside.rename(self.store)


def work_for_ten_minutes() -> None:
    """Run at least as many attempts as a worker makes in ten minutes, without the delays between them."""
    for _ in range(ROUNDS):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo'")
        Worker(has_clock=False).run(until_idle=True)


def test_build_waits_for_blob_store(store: Path) -> None:
    world = World("acme")
    agent, _ = world.agent(world.prod)
    run_jobs()
    deployment = world.deployment(world.bundle(world.prod))
    world.reviewer.api.post(
        world.path(world.prod, "/approvals"), {"deployment_id": str(deployment.pk), "decision": "approve"}
    )

    with UnavailableStore(store):
        work_for_ten_minutes()
        deployment.refresh_from_db()
        assert deployment.status == "building"
        seen = Agent.objects.with_state().select_related("environment__project").get(pk=agent.pk)
        explanation = explanations.explain_agent(seen)
        (finding,) = [each for each in explanation.because if each.code == "held_up"]
        assert "releases.build is waiting until" in finding.detail
    work_for_ten_minutes()

    deployment.refresh_from_db()
    assert (deployment.status, stories.desired(agent)) == ("deploying", (deployment.pk, "activate"))
    assert [entry.event for entry in deployment.timeline.order_by("id")] == ["create", "approve", "build", "offer"]
    assert Approval.objects.get().used_at is not None
    assert not KnownBad.objects.exists()
    assert not ProcrastinateJob.objects.filter(status="failed").exists()


def test_ingest_and_dry_run_wait_for_blob_store(store: Path) -> None:
    world = World("acme")
    agent, api = world.agent()
    version = world.version()
    first = ingested(world, incident(version.spec_kv))
    world.operator.api.post(world.path(rest=f"/artifacts/{first.pk}/replay"), {})
    incidents.upload(
        api, agent, incident(version.spec_kv, quotes_in=incidents.journal([b"{}"])), kind="incident_bundle"
    )

    with UnavailableStore(store):
        work_for_ten_minutes()
        assert sorted(Artifact.objects.values_list("status", flat=True)) == ["received", "verified"]
        assert Replay.objects.get().status == "queued"
    work_for_ten_minutes()

    assert set(Artifact.objects.values_list("status", flat=True)) == {"verified"}
    assert Replay.objects.get().status == "succeeded"
    assert not ProcrastinateJob.objects.exists()


@pytest.mark.parametrize("how", ["fails", "is missing"])
def test_agents_do_not_time_out_while_blob_store_is_unavailable(store: Path, how: str) -> None:
    world = World("acme")
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())

    outage = UnavailableStore(store)
    if how == "fails":
        outage.__enter__()
    else:
        store.rename(outage.aside)
    stories.set_offered_ago(deployment, 660, agent)  # longer than the timeout of 600 s
    from apps.releases.tasks import sweep

    for _ in range(3):
        sweep()
        run_jobs()
    deployment.refresh_from_db()
    assert deployment.status == "deploying"
    assert "Agent timeouts are suspended" in blockers.find_held_up([deployment])[deployment.pk]
    if how == "fails":
        outage.__exit__()
    else:
        outage.aside.rename(store)

    sweep()
    run_jobs()  # the agent does not time out immediately after the store becomes available again
    deployment.refresh_from_db()
    assert (deployment.status, blockers.find_held_up([deployment])) == ("deploying", {})
    report(api, agent, "active")
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, KnownBad.objects.exists()) == ("active", False)


def test_agent_can_time_out_after_outage_has_ended(store: Path) -> None:
    from apps.releases.tasks import sweep

    world = World("acme")
    ((agent, _),) = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    with UnavailableStore(store):
        sweep()
        run_jobs()
    sweep()
    run_jobs()
    stories.set_offered_ago(deployment, 660, agent)
    Deployment.objects.update(timeouts_from=deployment.agents.get().offered_at)

    sweep()
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason) == ("failed", "timeout")
