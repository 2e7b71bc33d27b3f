"""State machines: in each status, an event is either permitted and recorded, or refused and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.utils import timezone

from apps.artifacts.models import Artifact, Bisect, Replay, RequestedCapture
from apps.fleet.models import Agent
from apps.releases.models import Approval, ConfigBundle, Deployment, Regression, TimelineEntry
from apps.releases.services import bundles
from apps.releases.services.timeline import advance_deployment
from apps.releases.tasks import sweep
from apps.tenancy.models import AuditEvent, Stateful
from apps.tenancy.services.state import advance
from byteor.engine.break_glass import BreakGlassRequest
from byteor.engine.machines import MACHINES, StateMachine
from byteor_cloud.errors import IllegalTransition
from byteor_cloud.ids import uuid7
from byteor_cloud.storage import blobs
from tests.recorded import Recorded
from tests.releases import stories
from tests.worlds import Api, World, report, run_jobs

pytestmark = pytest.mark.django_db

MODELS = {model.machine.name: model for model in apps.get_models() if issubclass(model, Stateful)}


def pairs() -> Iterator[tuple[str, Any, Any]]:
    for machine in MACHINES:
        for status in machine.states:
            for event in machine.events:
                yield machine.name, status, event


def row(world: World, name: str) -> Stateful:
    """Create a row of the model whose status the state machine ``name`` changes."""
    stories.fleet(world, 1, world.prod)
    if name in {"deployment", "approval"}:
        deployment = world.deployment(world.bundle(world.prod))
        assert deployment.approval is not None
        return deployment if name == "deployment" else deployment.approval
    if name == "regression":
        return Regression.objects.create(environment=world.dev, pipeline="quotes", spec_kv="")
    agent, _ = world.agent()
    artifact = Artifact.objects.create(
        environment=world.dev, agent=agent, kind="telemetry", content_hash="sha256:" + "0" * 64, size_bytes=1,
        captured_at=timezone.now(),
    )  # fmt: skip
    if name == "capture":
        return RequestedCapture.objects.create(
            environment=world.dev, agent=agent, reason="slow", expires_at=timezone.now()
        )
    if name == "artifact":
        return artifact
    if name == "bisect":
        return Bisect.objects.create(environment=world.dev, artifact=artifact, predicate="fails", versions=[])
    return Replay.objects.create(environment=world.dev, artifact=artifact, version=world.version())


def test_every_state_machine_belongs_to_model() -> None:
    assert {machine.name for machine in MACHINES} == set(MODELS)
    assert set(MODELS.values()) == {Deployment, Approval, Artifact, Replay, Bisect, Regression, RequestedCapture}


@cache
def _recorded_row(name: str) -> Recorded[tuple[World, Stateful]]:
    def make() -> tuple[World, Stateful]:
        world = World("acme")
        return world, row(world, name)

    return Recorded(make)


@pytest.mark.parametrize(("name", "status", "event"), list(pairs()))
def test_permitted_event_is_recorded_and_refused_event_changes_nothing(name: str, status: Any, event: Any) -> None:
    world, governed = _recorded_row(name)()
    machine: StateMachine = governed.machine
    governed.status = status
    governed.save()
    audited, timeline_before = AuditEvent.objects.count(), TimelineEntry.objects.count()
    target = machine.table[event].get(status)
    move: Any = advance_deployment if name == "deployment" else advance
    step = partial(move, governed, event, actor=world.operator.actor)

    if target is None:
        with pytest.raises(IllegalTransition, match=rf"The {name} is {status}\.") as refusal:
            step()
        assert refusal.value.status == 409
    else:
        step()

    moved = target is not None
    governed.refresh_from_db()
    assert governed.status == (target if moved else status)
    assert AuditEvent.objects.count() == audited + moved
    assert TimelineEntry.objects.count() == timeline_before + (moved and name == "deployment")
    if moved:
        written = AuditEvent.objects.order_by("id").last()
        assert written is not None
        assert (written.action, written.resource_id, written.changes["status"], written.actor_id) == (
            f"{name}.{event}", str(governed.pk), [str(status), str(target)], str(world.operator.user.pk),
        )  # fmt: skip


# The last test checks the same rule through the API: each request of ALLOWED in each state of STORIES. STORIES maps a
# state to the steps that lead to it, in an environment that requires approval and in which another deployment ran
# before. ALLOWED maps a request to the states in which it is permitted.
STORIES = {
    "pending_approval": "",
    "denied": "deny",
    "expired": "expire",
    "approved": "approve",
    "revoked": "approve revoke",
    "building": "approve crash",
    "deploying": "approve work",
    "paused": "approve work pause",
    "active": "approve work end",
    "superseded": "approve work end another",
    "failed": "approve work fail",
    "cleared": "approve work fail clear",
    "aborted": "approve work abort",
    "rolling_back": "approve work end rollback",
    "rolled_back": "approve work end rollback end",
    "break_glass": "work",
}
STATUS = {
    "expired": "failed", "revoked": "failed", "cleared": "failed", "aborted": "failed", "paused": "deploying",
    "superseded": "active", "break_glass": "deploying",
}  # fmt: skip
ALLOWED = {
    "approve": "pending_approval break_glass",
    "deny": "pending_approval break_glass",
    "revoke": "pending_approval break_glass approved",
    "abort": "pending_approval approved building deploying paused break_glass",
    "pause": "deploying break_glass",
    "resume": "paused",
    "retry": "cleared aborted",
    "rollback": "deploying paused active failed cleared break_glass",
}
# A part of the error message, by story and action, of requests that are refused for reasons other than the status.
OTHER_REFUSALS = {
    ("superseded", "rollback"): "superseded",
    ("paused", "pause"): "paused",
    ("deploying", "resume"): "not paused",
    ("break_glass", "resume"): "not paused",
    ("expired", "retry"): "The deployment failed before it was offered to an agent",
    ("revoked", "retry"): "The deployment failed before it was offered to an agent",
}


class Interrupted(Exception):
    """Simulates a crash of the worker."""


def request_action(world: World, deployment: Deployment, action: str) -> Any:
    """Request the action through the API, and return the response."""
    path = world.path(world.prod)
    if action in {"approve", "deny"}:
        body = {"deployment_id": str(deployment.pk), "decision": action, "comment": "because"}
        return world.reviewer.api.post(f"{path}/approvals", body)
    if action == "revoke":
        return world.reviewer.api.post(f"{path}/approvals/{deployment.approval_id}/revoke")
    return world.operator.api.post(f"{path}/deployments/{deployment.pk}/{action}", {"reason": "because"})


@dataclass
class Before:
    """The initial state of every story: an agent and three bundles. The deployment of the first bundle is active."""

    world: World
    agent: Agent
    api: Api
    bundles: list[ConfigBundle]


def _before() -> Before:
    world = World("acme")
    ((agent, api),) = stories.fleet(world, 1, world.prod)
    before = Before(world, agent, api, stories.bundles(world, 3, world.prod))
    _act_out(before, world.deployment(before.bundles[0]), STORIES["active"])
    return before


_recorded_before = Recorded(_before)


def deployment_after(before: Before, story: str) -> Deployment:
    """Create a deployment and perform the steps of the story with it."""
    glass = {"break_glass": BreakGlassRequest("outage"), "is_org_admin": True} if story == "break_glass" else {}
    deployment = before.world.deployment(before.bundles[1], **glass)
    _act_out(before, deployment, STORIES[story])
    deployment.refresh_from_db()
    assert deployment.status == STATUS.get(story, story)
    return deployment


def _act_out(before: Before, deployment: Deployment, steps: str) -> None:
    world, agent, api = before.world, before.agent, before.api
    _, second, third = before.bundles

    def act(deployment: Deployment, step: str) -> None:
        match step:
            case "work":
                run_jobs()
            case "crash":
                with patch.object(blobs, "put", _interrupted), pytest.raises(Interrupted):
                    run_jobs()
            case "expire":
                Approval.objects.filter(deployment=deployment).update(expires_at=timezone.now() - timedelta(seconds=1))
                sweep()
            case "end" | "fail":
                end = "rolled_back" if stories.desired(agent)[1] == "rollback" else "active"
                assert report(api, agent, end if step == "end" else "failed").status_code == 200
                run_jobs()
            case "another":
                _act_out(before, world.deployment(third), STORIES["active"])
            case "clear":
                bundles.clear_known_bad(second, reason="mended", actor=world.operator.actor)
            case _:
                assert request_action(world, deployment, step).status_code in {200, 201}

    for step in steps.split():
        act(deployment, step)


def _interrupted(*_: object) -> None:
    raise Interrupted


def digests() -> dict[str, str]:
    """Return a digest of all rows of each table, including the queue.

    The rate counters are left out, because they also change when a request is refused.
    """
    with connection.cursor() as cursor:
        cursor.execute(_digesting())
        return dict(cursor.fetchall())


@cache
def _digesting() -> str:
    """Return the SQL statement of ``digests``."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        tables = [table for (table,) in cursor if table != "tenancy_ratecounter"]
    return " UNION ALL ".join(
        f"SELECT '{table}', (SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {table} t)" for table in tables
    )


def test_tested_stories_reach_every_deployment_status() -> None:
    assert {STATUS.get(story, story) for story in STORIES} == set(Deployment.machine.states)


@pytest.mark.parametrize("story", STORIES)
def test_permitted_request_is_recorded_and_refused_request_changes_nothing(story: str) -> None:
    recorded = _recorded_before()
    world, deployment = recorded.world, deployment_after(recorded, story)
    approval = deployment.approval
    assert approval is not None
    for person in (world.operator, world.reviewer):
        person.api.get("/api/v1/me")  # so that the token's last use is stored now and not again within the test
    before = digests()

    for action, allowed in ALLOWED.items():
        since, mark = uuid7(), transaction.savepoint_create()

        response = request_action(world, deployment, action)

        if story in allowed.split():
            assert response.status_code in {200, 201}, (action, response.json())
            _moved_with_its_records(deployment, approval, action, since)
        else:
            problem = response.json()
            assert (response.status_code, problem["status"]) == (409, 409), (action, problem)
            assert response["Content-Type"] == "application/problem+json"
            status = approval.status if action in {"approve", "deny", "revoke"} else deployment.status
            if action == "revoke" and approval.used_at:
                status = "used"
            assert OTHER_REFUSALS.get((story, action), status) in problem["detail"], (action, problem)
            assert digests() == before, action
        transaction.savepoint_rollback(mark)
    assert digests() == before


def _moved_with_its_records(deployment: Deployment, approval: Approval, action: str, since: UUID) -> None:
    """Assert that the request added one timeline entry, and an audit event for each changed row.

    The rows are the deployment and the approval. Audit events of decisions are ignored.
    """
    (entry,) = deployment.timeline.filter(pk__gt=since)
    events = AuditEvent.objects.filter(pk__gt=since)
    for row in (deployment, approval):
        now = type(row).objects.get(pk=row.pk)
        steps = list(events.filter(resource_id=row.pk).exclude(action__contains=".decision."))
        if action in {"pause", "resume"} and row is deployment:
            assert [step.action for step in steps] == [f"deployment.{action}"]
            assert now.status == row.status
        else:
            moved = now.status != row.status
            assert [step.changes["status"] for step in steps] == ([[row.status, now.status]] if moved else [])
        if row is deployment and not entry.event.startswith("break_glass_"):
            assert [step.action for step in steps] == [f"deployment.{entry.event}"]
