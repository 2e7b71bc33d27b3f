"""Operations that lock several rows lock them in the same order, so two operations cannot deadlock.

``test_requests_and_purge_do_not_deadlock`` is about requests that found a row before its environment or project was
deleted. The purge stops just before it deletes from one table, the request runs until it finishes or waits, and the
purge continues. If the purge and the request acquired locks in different orders, they would deadlock. The last test
checks when a purge is scheduled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.fleet.models import Agent, AgentKey, Assignment, EnrollmentToken
from apps.fleet.services import agents as fleet
from apps.fleet.services import enrollment, keys
from apps.fleet.services.enrollment import Enrolled, Enrollment
from apps.fleet.services.labels import LabelChange
from apps.releases.models import Deployment
from apps.releases.services import approvals, deployments, relabeling, reports, reviewers, rollbacks
from apps.releases.services.relabeling import Relabeled
from apps.tenancy.models import AuditEvent, Environment, Project, WebhookDelivery
from apps.tenancy.services import organizations
from apps.tenancy.services.state import lock_row
from apps.tenancy.services.webhooks import subscriptions
from byteor.engine.machines import AgentProgress
from byteor_cloud.errors import DomainError, Unavailable
from tests.patience import wait_until
from tests.races import count_waiting, outcome
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db(transaction=True)

_STOP = 7_226_190_777  # the number of this test's advisory lock
_STOPPING = """
CREATE FUNCTION test_stop() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(%s); RETURN NULL; END $$;
CREATE TRIGGER test_stop BEFORE DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION test_stop();
"""


@dataclass
class Story:
    """An environment, and rows in it that the requests of the tests change."""

    world: World
    environment: Environment
    agent: Agent
    drained: Agent
    token: EnrollmentToken
    under_way: Deployment
    pending: Deployment
    delivery: WebhookDelivery


def create_story(world: World) -> Story:
    actor = world.admin.actor
    environment = world.environment("dev", "busy", approvals_required=True, max_in_flight_deployments=2)
    agent, _ = world.agent(environment)
    drained, _ = world.agent(environment, "drained")
    fleet.set_drained(drained, drained=True, actor=actor)
    token, _ = enrollment.create_enrollment_token(environment=environment, max_uses=9, replace=True, actor=actor)
    bundle = world.bundle(environment)
    under_way = world.deployment(bundle)
    assert under_way.approval is not None
    approvals.decide(under_way.approval, decision="approve", user=world.reviewer.user, actor=world.reviewer.actor)
    run_jobs()
    webhook, _ = subscriptions.create(
        organization=world.organization, environment_id=environment.pk, url="https://hooks.example/1",
        events=["approval.expire"], actor=actor,
    )  # fmt: skip
    event = AuditEvent.objects.filter(organization=world.organization).latest("id")
    delivery = WebhookDelivery.objects.create(webhook=webhook, event=event, status="delivered")
    return Story(world, environment, agent, drained, token, under_way, world.deployment(bundle), delivery)


def _report(story: Story) -> None:
    assignment = Assignment.objects.get(agent=story.agent)
    reports.report(
        agent_id=story.agent.pk, environment_id=story.environment.pk, deployment_id=story.under_way.pk,
        status=AgentProgress.DOWNLOADING, bundle_hash=assignment.bundle_hash or "",
    )  # fmt: skip


def _enroll(story: Story) -> None:
    actor = story.world.admin.actor
    enrollment.enroll(Enrollment(token=story.token, environment=story.environment, name="agent", actor=actor))


def _decide(story: Story, decision: str) -> None:
    assert story.pending.approval is not None
    person = story.world.reviewer
    approvals.decide(story.pending.approval, decision=decision, comment="why", user=person.user, actor=person.actor)


def _revoke(story: Story) -> None:
    assert story.pending.approval is not None
    approvals.revoke(story.pending.approval, actor=story.world.reviewer.actor)


def _key(story: Story) -> AgentKey:
    key: AgentKey = AgentKey.objects.select_related("agent__environment__project").get(agent=story.agent)
    return key


ENVIRONMENT = "tenancy_environment"
# Each request, and a table. The purge stops just before it deletes from this table.
REQUESTS: dict[str, tuple[str, Callable[[Story], object]]] = {
    "drain": (ENVIRONMENT, lambda s: fleet.set_drained(s.agent, drained=True, actor=s.world.admin.actor)),
    "undrain": (ENVIRONMENT, lambda s: fleet.set_drained(s.drained, drained=False, actor=s.world.admin.actor)),
    "abort": (ENVIRONMENT, lambda s: deployments.abort(s.pending, actor=s.world.admin.actor)),
    "change reviewers": (ENVIRONMENT, lambda s: reviewers.change(s.pending, reviewers=[], actor=s.world.admin.actor)),
    "retry": (ENVIRONMENT, lambda s: deployments.retry(s.under_way, actor=s.world.admin.actor)),
    "roll back": (ENVIRONMENT, lambda s: rollbacks.start(s.under_way, reason="why", actor=s.world.admin.actor)),
    "move": (
        ENVIRONMENT,
        lambda s: organizations.update_environment(
            s.environment, {"position": 1}, may_loosen=True, actor=s.world.admin.actor
        ),
    ),
    "relabel": (
        ENVIRONMENT,
        lambda s: relabeling.relabel(s.environment, {}, LabelChange({"x": "1"}), actor=s.world.admin.actor),
    ),
    "approve": ("releases_approval", lambda s: _decide(s, "approve")),
    "deny": ("releases_approval", lambda s: _decide(s, "deny")),
    "revoke": ("releases_approval", _revoke),
    "decommission": ("fleet_agent", lambda s: fleet.decommission(s.agent, actor=s.world.admin.actor)),
    "rotate": ("fleet_agent", lambda s: keys.rotate_key(s.agent, actor=s.world.admin.actor)),
    "request rotation": ("fleet_agent", lambda s: keys.request_rotation(s.agent, actor=s.world.admin.actor)),
    "rotate own key": ("fleet_agent", lambda s: keys.rotate_own_key(_key(s), actor=s.world.admin.actor)),
    "report": ("fleet_assignment", _report),
    "enroll again": ("fleet_enrollmenttoken", _enroll),
    "deliver again": ("tenancy_webhook", lambda s: subscriptions.redeliver(s.delivery, actor=s.world.admin.actor)),
}


@contextmanager
def _stopped_before(table: str) -> Iterator[Callable[[], None]]:
    """Make every deletion from the table wait until the yielded function is called."""
    with connection.cursor() as cursor:
        cursor.execute(_STOPPING.format(table=table).replace("%s", str(_STOP)))
        cursor.execute("SELECT pg_advisory_lock(%s)", [_STOP])

    def go_on() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock_all()")

    try:
        yield go_on
    finally:
        go_on()
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TRIGGER test_stop ON {table}; DROP FUNCTION test_stop")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("environment", name) for name in REQUESTS),
        *(("project", name) for name in ("undrain", "abort", "deliver again", "move")),
    ],
)
def test_requests_and_purge_do_not_deadlock(world: World, kind: str, name: str) -> None:
    table, request = REQUESTS[name]
    story = create_story(world)
    row: Environment | Project = story.environment if kind == "environment" else world.project
    organizations.delete(row, kind=kind, actor=world.admin.actor)
    with ThreadPoolExecutor(2) as threads, _stopped_before(table) as go_on:
        purge: Future[object] = threads.submit(outcome, lambda: organizations.purge(type(row), str(row.pk)))
        wait_until(lambda: purge.done() or count_waiting() == 1)
        assert not purge.done(), purge.result()

        requested: Future[object] = threads.submit(outcome, lambda: request(story))
        wait_until(lambda: requested.done() or count_waiting() == 2)
        go_on()

        assert purge.result() is None
        response = requested.result()
    assert isinstance(response, DomainError), response
    assert not isinstance(response, Unavailable), response
    assert not Environment.objects.filter(pk=story.environment.pk).exists()


def test_relabeling_of_chosen_agents_waits_for_environment_lock(world: World) -> None:
    world.agent(name="edge")
    chosen, change = Agent.objects.filter(environment=world.dev), LabelChange({"x": "1"})
    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            lock_row(world.dev)
            relabeled: Future[object] = threads.submit(
                outcome,
                lambda: relabeling.relabel_chosen(world.dev, chosen, change, actor=world.admin.actor),
            )
            wait_until(lambda: relabeled.done() or count_waiting() == 1)
            assert not relabeled.done(), relabeled.result()

        assert relabeled.result() == 1


def test_enrollments_and_relabeling_do_not_deadlock(world: World) -> None:
    actor = world.admin.actor
    world.agent(name="z")
    second, _ = world.agent(name="a")  # the second agent has the larger id, but its name sorts first
    token, _ = enrollment.create_enrollment_token(environment=world.dev, max_uses=2, replace=True, actor=actor)
    requests = [Enrollment(token=token, environment=world.dev, name=name, actor=actor) for name in ("a", "z")]
    with ThreadPoolExecutor(2) as threads:
        with transaction.atomic():
            lock_row(second)
            enrolled = threads.submit(outcome, lambda: enrollment.enroll_all(requests))
            wait_until(lambda: count_waiting() == 1)
            relabeled = threads.submit(
                outcome, lambda: relabeling.relabel(world.dev, {}, LabelChange({"x": "1"}), actor=actor)
            )
            wait_until(lambda: count_waiting() == 2)

        assert [type(each) for each in enrolled.result()] == [Enrolled, Enrolled], enrolled.result()
        assert isinstance(relabeled.result(), Relabeled), relabeled.result()
    assert Agent.objects.filter(environment=world.dev, decommissioned_at=None).count() == 2


@pytest.mark.parametrize("kind", ["environment", "project"])
def test_purge_is_scheduled_at_least_60_seconds_after_deletion(world: World, kind: str) -> None:
    row: Environment | Project = world.dev if kind == "environment" else world.project
    before = timezone.now()

    organizations.delete(row, kind=kind, actor=world.admin.actor)

    job = ProcrastinateJob.objects.get(task_name=f"tenancy.purge_{kind}")
    assert job.scheduled_at is not None
    assert job.scheduled_at >= before + timedelta(seconds=60)
