"""Start times: which are refused, what waits for them, and what happens before and at the start."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.releases.models import Approval, ConfigBundle, Deployment
from apps.releases.services import approvals, builds, bundles, deployments
from apps.releases.tasks import sweep
from apps.tenancy.models import AuditEvent, Environment, UserToken
from byteor.engine.canonical import format_time
from tests.releases import stories
from tests.releases.stories import Run, command, report_from_all, run_sweep, state
from tests.worlds import ALL, Person, World

pytestmark = pytest.mark.django_db
NOW = "2027-03-19T16:00:00+00:00"  # a Friday


@pytest.fixture
def clock(world: World, clock: stories.Clock) -> stories.Clock:
    """Set the clock to ``NOW``. Remove the expiry times of the user tokens, which could be earlier."""
    UserToken.objects.update(expires_at=None)
    clock.set(NOW)
    return clock


def later(**by: float) -> str:
    """Return the time that is later than now by this much, in RFC 3339 format."""
    return format_time(timezone.now().astimezone(UTC) + timedelta(**by))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ask(world: World, bundle: ConfigBundle, by: Person | None = None, **body: Any) -> Any:
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, **body}
    return (by or world.operator).api.post(world.path(bundle.environment, "/deployments"), body)


def asked(world: World, bundle: ConfigBundle, by: Person | None = None, **body: Any) -> Deployment:
    response = ask(world, bundle, by, **body)
    assert response.status_code == 201, response.json()
    return Deployment.objects.get(pk=response.json()["id"])


def approve(world: World, deployment: Deployment, **body: Any) -> dict[str, Any]:
    body = {"deployment_id": str(deployment.pk), "decision": "approve", **body}
    response = world.reviewer.api.post(world.path(deployment.environment, "/approvals"), body)
    assert response.status_code == 201, response.json()
    found: dict[str, Any] = response.json()
    return found


def blockers(world: World, deployment: Deployment) -> list[tuple[str, str | None]]:
    """Return the code of each blocker, and when it ends (None if unknown)."""
    path = world.path(deployment.environment, f"/deployments/{deployment.pk}")
    return [(each["code"], each["until"]) for each in world.viewer.api.get(path).json()["blockers"]]


def problem(response: Any) -> tuple[int, str]:
    body = response.json()
    first = (body.get("errors") or [{}])[0]
    assert first.get("pointer", "/start_at") == "/start_at", body
    return response.status_code, first.get("code") or body["type"].rpartition(":")[2]


def freeze(environment: Environment, start: str, end: str) -> None:
    window = {"start": start, "end": end, "time_zone": "UTC", "recurrence": None, "reason": "quarter end"}
    Environment.objects.filter(pk=environment.pk).update(
        settings={**environment.settings, "freeze_windows": [{k: v for k, v in window.items() if v is not None}]}
    )
    environment.refresh_from_db()


def test_start_time_must_be_valid_and_within_next_30_days(world: World, clock: stories.Clock) -> None:
    stories.fleet(world, 1)
    bundle = world.bundle()
    for start_at, code in (
        (later(seconds=-1), "in_past"),
        (later(), "in_past"),
        ("0001-01-01T00:00:00Z", "in_past"),
        (later(days=30, seconds=1), "too_far"),
        ("9999-12-31T23:59:59Z", "too_far"),
        ("2027-03-19T18:00:00", "invalid"),
        ("0001-01-01T00:00:00+14:00", "invalid"),
        ("9999-12-31T23:59:59-14:00", "invalid"),
        ("2027-03-20", "invalid"),
        ("tomorrow", "invalid"),
        ("", "invalid"),
        (1_806_000_000, "invalid"),
    ):
        assert problem(ask(world, bundle, start_at=start_at)) == (400, code), start_at
    stories.fleet(world, 1, world.prod)
    urgent = {"start_at": later(hours=1), "break_glass": {"reason": "outage"}}
    assert problem(ask(world, world.bundle(world.prod), world.admin, **urgent)) == (400, "contradiction")
    assert (Deployment.objects.count(), Approval.objects.count()) == (0, 0)

    assert ask(world, bundle, start_at=None).json()["start_at"] is None
    deployments.abort(Deployment.objects.get(), actor=world.admin.actor)
    last = ask(world, bundle, start_at="2027-04-18T18:00:00.000000+02:00").json()
    assert (last["status"], last["start_at"]) == ("approved", "2027-04-18T16:00:00Z")
    created = AuditEvent.objects.filter(action="deployment.create").latest("id")
    assert created.changes["start_at"] == "2027-04-18T16:00:00Z"


def test_freeze_window_is_checked_for_start_time(world: World, clock: stories.Clock, run_jobs: Run) -> None:
    stories.fleet(world, 1, world.dev)
    bundle = world.bundle()
    freeze(world.dev, later(hours=1), later(hours=3))
    inside, after = later(hours=2), later(hours=3)
    refused = ask(world, bundle, start_at=inside)
    assert problem(refused) == (409, "freeze_window")
    assert refused.json()["detail"] == "A freeze window lasts until 2027-03-19 19:00 UTC: quarter end."
    override: dict[str, Any] = {"override_freeze": {"reason": "The exchange moves."}}
    assert ask(world, bundle, start_at=inside, **override).status_code == 403
    assert not Deployment.objects.exists()
    overriding = asked(world, bundle, world.admin, start_at=inside, **override)

    # A window that is open now, but not at the start time, does not prevent the request.
    clock.forward(hours=1)
    assert ask(world, bundle).status_code == 409
    waiting = asked(world, bundle, start_at=after)
    assert blockers(world, waiting) == [("start_at", after), ("freeze_window", after)]
    clock.forward(hours=1)
    run_sweep(run_jobs)
    assert (state(overriding)[0], state(waiting)[0]) == ("deploying", "approved")
    deployments.abort(overriding, actor=world.admin.actor)

    # A window that was added later delays the start.
    freeze(world.dev, later(), later(hours=5))
    clock.forward(hours=4)
    run_sweep(run_jobs)
    assert (state(waiting)[0], blockers(world, waiting)) == ("approved", [("freeze_window", later(hours=1))])
    clock.forward(hours=1)
    run_sweep(run_jobs)
    assert state(waiting) == ("deploying", "")


def test_scheduled_deployment_is_not_in_flight_before_start_time_and_then_waits_in_line(
    world: World, clock: stories.Clock, run_jobs: Run
) -> None:
    agents, (one, two) = stories.fleet(world, 2), stories.bundles(world, 2)
    start_at = later(hours=1)
    scheduled = asked(world, one, start_at=start_at)
    second = asked(world, two, start_at=start_at)
    run_jobs()
    for each in (scheduled, second):
        assert (state(each)[0], blockers(world, each)) == ("approved", [("start_at", start_at)])

    # Before the start time, no other deployment waits for these two, and the sweep enqueues no build of them.
    early = asked(world, two)
    run_jobs()
    assert state(early) == ("deploying", "")
    report_from_all(agents, "active", run_jobs)
    clock.forward(minutes=59, seconds=59)
    sweep()
    assert not ProcrastinateJob.objects.filter(task_name="releases.build").exists()
    ProcrastinateJob.objects.all().delete()
    late = asked(world, two)
    run_jobs()
    assert state(late) == ("deploying", "")
    explained = world.viewer.api.get(world.path(rest=f"/agents/{agents[0][0].pk}/explain")).json()
    assert "2027-03-19 17:00:00 UTC" in str(explained)

    # Both are due. The first waits for ``late``, and the second waits for the first. A further request is refused.
    clock.forward(seconds=1)
    run_sweep(run_jobs)
    assert [code for code, _ in blockers(world, scheduled)] == ["in_flight_limit", "pipeline_busy"]
    assert ask(world, two).status_code == 409
    report_from_all(agents, "active", run_jobs)
    run_sweep(run_jobs)
    assert (state(scheduled), state(second)[0]) == (("deploying", ""), "approved")
    report_from_all(agents, "active", run_jobs)
    run_sweep(run_jobs)
    assert (state(scheduled)[0], state(second)[0]) == ("active", "deploying")


def test_lifetime_of_approval_begins_at_start_time_or_at_decision_whichever_is_later(
    world: World, clock: stories.Clock, run_jobs: Run
) -> None:
    prod = world.prod
    stories.fleet(world, 1, prod)
    bundle = world.bundle(prod)
    start = timezone.now() + timedelta(days=2, microseconds=500_000)
    start_at = format_time(start)

    def credential_end(text: str) -> str:
        payload = text.partition(".")[0]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["expires_at"])

    first = asked(world, bundle, start_at=start_at)
    assert first.approval is not None
    assert first.approval.expires_at == start + timedelta(hours=1)
    shown = world.viewer.api.get(world.path(prod, f"/approvals/{first.approval_id}")).json()
    assert shown["start_at"] == "2027-03-21T16:00:00.500000Z"
    given = approve(world, first, expires_in_s=600)
    assert given["expires_at"] == credential_end(given["credential"]) == "2027-03-21T16:10:00Z"
    run_jobs()
    assert blockers(world, first) == [("start_at", "2027-03-21T16:00:00.500000Z")]

    # After an abort, the credential can be used only for a request with the same start time.
    deployments.abort(first, actor=world.admin.actor)
    for other in (None, later(days=2), later(days=3)):
        assert problem(ask(world, bundle, start_at=other, approval=given["credential"])) == (409, "approval.binding")
    Approval.objects.update(expires_at=start)
    early = ask(world, bundle, start_at=start_at, approval=given["credential"])
    assert problem(early) == (409, "approval.expired")
    Approval.objects.update(expires_at=moment(given["expires_at"]))
    second = asked(world, bundle, start_at=start_at, approval=given["credential"])
    assert (second.status, second.handed_in_id) == ("approved", first.approval_id)

    # Settings that change later do not matter. The deployment starts at its start time.
    settings = {"required_approvals": 2, "approval_ttl_s": 60, "agent_timeout_s": 60, "reviewers": []}
    assert world.admin.api.put(world.path(prod), {"settings": settings}).status_code == 200
    clock.now = start
    run_sweep(run_jobs)
    assert state(second) == ("deploying", "")
    deployments.abort(second, actor=world.admin.actor)

    # Approved after the start time: the credential expires ``approval_ttl_s`` after the decision.
    Environment.objects.filter(pk=prod.pk).update(settings={"agent_timeout_s": 86_400})
    third = asked(world, bundle, start_at=later(hours=1))
    clock.forward(hours=1, minutes=30)
    run_sweep(run_jobs)
    assert state(third) == ("pending_approval", "")
    assert moment(approve(world, third)["expires_at"]) == timezone.now().replace(microsecond=0) + timedelta(hours=1)
    run_jobs()
    assert state(third) == ("deploying", "")

    # Nobody approves, or the credential expires while the deployment waits for another one.
    fourth, fifth = (asked(world, bundle, start_at=later(hours=1)) for _ in range(2))
    approve(world, fifth, expires_in_s=60)
    clock.forward(hours=1, minutes=59)
    run_sweep(run_jobs)
    assert (state(fourth)[0], state(fifth)[0]) == ("pending_approval", "approved")
    clock.forward(minutes=1)
    deployments.abort(third, actor=world.admin.actor)
    run_sweep(run_jobs)
    assert (state(fourth), state(fifth)) == (("failed", "approval_expired"), ("failed", "approval_expired"))


def test_scheduled_deployment_that_is_aborted_revoked_denied_or_known_bad_does_not_start(
    world: World, clock: stories.Clock, run_jobs: Run
) -> None:
    prod = world.prod
    stories.fleet(world, 1, prod)
    one, two = stories.bundles(world, 2, prod)
    start_at = later(hours=1)
    aborted, revoked, bad, denied = (asked(world, one, start_at=start_at) for _ in range(4))
    for each in (aborted, revoked, bad):
        approve(world, each)
    run_jobs()
    assert command(world.operator.api, world, aborted, "abort").status_code == 200
    assert revoked.approval is not None
    approvals.revoke(revoked.approval, actor=world.operator.actor)
    body = {"deployment_id": str(denied.pk), "decision": "deny", "comment": "no"}
    assert world.reviewer.api.post(world.path(prod, "/approvals"), body).status_code == 201
    bundles.mark_known_bad(prod, one.config_hash, reason="It leaks.", actor=world.admin.actor)
    run_sweep(run_jobs)
    assert (state(bad)[0], blockers(world, bad)) == ("approved", [("start_at", start_at)])
    assert [command(world.operator.api, world, bad, verb).status_code for verb in ("pause", "next-wave")] == [409, 409]
    clock.forward(hours=1)
    run_sweep(run_jobs)
    assert [state(each) for each in (aborted, revoked, bad, denied)] == [
        ("failed", "aborted"), ("failed", "approval_revoked"), ("failed", "known_bad"), ("denied", ""),
    ]  # fmt: skip

    # If the environment is deleted, nothing starts.
    gone = asked(world, two, start_at=later(hours=1))
    approve(world, gone)
    assert world.admin.api.delete(world.path(prod)).status_code == 204
    clock.forward(hours=1)
    sweep()
    builds.build(str(gone.pk))
    assert (state(gone), gone.bundle_hash) == (("approved", ""), None)
