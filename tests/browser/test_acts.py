"""Acts in the console: each requires confirmation and calls a service as the signed-in person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apps.artifacts.models import RequestedCapture
from apps.fleet.models import Agent, AgentKey, EnrollmentToken
from apps.pipelines.models import Version
from apps.releases.models import Approval, ApprovalDecision, ConfigBundle, Deployment, KnownBad
from apps.tenancy.models import (
    AuditEvent,
    OrganizationKey,
    Project,
    SigningKey,
    UserToken,
    Webhook,
    WebhookDelivery,
)
from tests.artifacts.incidents import upload
from tests.browser.confirmed import YES, shown_messages
from tests.browser.filled import act, fill, row_page, signed_in, table, titled_counts
from tests.browser.test_people import sent
from tests.worlds import World

pytestmark = pytest.mark.django_db


def waiting(world: World, name: str = "first") -> Deployment:
    """Create a deployment to prod that waits for approval."""
    if not Agent.objects.filter(environment=world.prod).exists():
        world.agent(world.prod)
    return world.deployment(world.bundle(world.prod, name, version=Version.objects.first()))


def test_opening_approval_page_shows_deployment_and_records_no_decision(world: World) -> None:
    approval = Approval.objects.get(deployment=waiting(world))

    page = signed_in(world.reviewer.user).get(act(approval, "approve"))

    assert page.status_code == 200
    assert page.context["rows"] == [(approval, "quotes v1 to prod")]
    assert not ApprovalDecision.objects.exists()


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("approval", "Approval of quotes v1 to prod given."),
        ("deployment", "Deployment of quotes v1 to 1 agent approved by you."),
    ],
)
def test_reviewer_can_approve_deployment(world: World, run_jobs: Callable[[], int], at: str, message: str) -> None:
    deployment = waiting(world)
    row = deployment if at == "deployment" else deployment.approval
    client = signed_in(world.reviewer.user)

    done = client.post(
        act(row, "approve"), {**YES, "comment": "looks right"}, follow=True, headers={"x-request-id": "req-12345678"}
    )

    assert done.redirect_chain == [(row_page(row), 302)]
    assert shown_messages(done) == [("success", message)]
    decision = ApprovalDecision.objects.get()
    assert (decision.user, decision.decision, decision.comment) == (world.reviewer.user, "approve", "looks right")
    event = AuditEvent.objects.get(action="approval.approve")
    assert (event.actor_kind, event.actor_id, event.actor_display) == (
        "user", str(world.reviewer.user.pk), "reviewer@acme.example",
    )  # fmt: skip
    assert (event.request_id, event.ip) == ("req-12345678", "192.0.2.7")
    run_jobs()
    deployment.refresh_from_db()
    assert deployment.status == "deploying"


@pytest.mark.parametrize("comment", ["", "   "])
def test_denial_requires_comment(world: World, comment: str) -> None:
    deployment = waiting(world)

    refused = signed_in(world.reviewer.user).post(act(deployment, "deny"), {**YES, "comment": comment})

    assert refused.context["form"].errors == {"comment": ["This field is required."]}
    assert not ApprovalDecision.objects.exists()
    deployment.refresh_from_db()
    assert deployment.status == "pending_approval"


def test_reviewer_can_deny_deployment(world: World) -> None:
    deployment = waiting(world)

    signed_in(world.reviewer.user).post(act(deployment, "deny"), {**YES, "comment": "not on a Friday"})

    deployment.refresh_from_db()
    assert deployment.status == "denied"
    assert ApprovalDecision.objects.get().comment == "not on a Friday"


OWN = "You, or a key that you created, requested this. Another person must approve it."


def test_self_approval_is_refused_with_reason_and_changes_nothing(world: World) -> None:
    deployment = waiting(world)
    events = AuditEvent.objects.count()

    refused = signed_in(world.operator.user).post(act(deployment, "approve"), YES, follow=True)

    assert shown_messages(refused) == [("error", f"quotes v1 to prod: {OWN}")]
    assert not ApprovalDecision.objects.exists()
    assert AuditEvent.objects.count() == events


def test_act_can_be_performed_on_several_rows(world: World) -> None:
    first = waiting(world)
    approvals = [first.approval, *(waiting(world, name).approval for name in ("second", "third"))]
    client = signed_in(world.reviewer.user)
    chosen = {"action": "deny", "_selected_action": [str(row.pk) for row in approvals[:2] if row]}

    asked = client.post(table(Approval), chosen)
    assert [row.pk for row, _ in asked.context["rows"]] == [row.pk for row in approvals[:2] if row]
    assert not ApprovalDecision.objects.exists()
    done = client.post(table(Approval), {**chosen, **YES, "comment": "all of them"}, follow=True)

    assert shown_messages(done) == [("success", "2 approvals denied.")]
    assert [Approval.objects.get(pk=row.pk).status for row in approvals if row] == ["denied", "denied", "pending"]


def test_revoking_unused_approval_fails_deployment(world: World) -> None:
    deployment = waiting(world)
    approval = deployment.approval
    client = signed_in(world.reviewer.user)
    client.post(act(approval, "approve"), YES)

    client.post(act(approval, "revoke"), YES)

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason) == ("failed", "approval_revoked")


def test_deployment_can_be_paused_resumed_and_aborted(world: World, run_jobs: Callable[[], int]) -> None:
    deployment = waiting(world)
    signed_in(world.reviewer.user).post(act(deployment, "approve"), YES)
    run_jobs()
    client = signed_in(world.operator.user)

    def buttons() -> list[str]:
        return [button["title"] for button in client.get(row_page(deployment)).context["acts"]]

    assert buttons() == ["Pause", "Abort"]  # no rollback, because there is no earlier deployment
    client.post(act(deployment, "pause"), {**YES, "comment": "lunch"})
    deployment.refresh_from_db()
    assert deployment.paused_at is not None
    assert buttons() == ["Resume", "Abort"]
    again = client.post(act(deployment, "pause"), YES, follow=True)
    assert shown_messages(again) == [("error", "quotes v1 to prod: The deployment is already paused.")]
    client.post(act(deployment, "resume"), YES)
    deployment.refresh_from_db()
    assert deployment.paused_at is None
    client.post(act(deployment, "abort"), {**YES, "comment": "wrong one"})
    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason, deployment.detail) == ("failed", "aborted", "wrong one")
    assert [entry.event for entry in deployment.timeline.order_by("id")][-3:] == ["pause", "resume", "abort"]


def test_known_bad_state_can_be_cleared_with_reason(world: World) -> None:
    bundle = world.bundle(world.prod)
    KnownBad.objects.create(environment=world.prod, config_hash=bundle.config_hash, reason="it failed")
    client = signed_in(world.operator.user)

    assert client.post(act(bundle, "clear"), {**YES, "comment": ""}).context["form"].errors
    assert KnownBad.objects.count() == 1
    client.post(act(bundle, "clear"), {**YES, "comment": "it was the disk"}, follow=True)

    assert KnownBad.objects.count() == 0
    assert AuditEvent.objects.get(action="config.clear").changes == {"reason": [None, "it was the disk"]}
    again = client.post(act(ConfigBundle.objects.get(), "clear"), {**YES, "comment": "once more"}, follow=True)
    assert shown_messages(again) == [("error", f"{bundle}: This configuration is not known bad.")]


@pytest.mark.parametrize(
    ("model", "who", "action", "scope"),
    [
        (UserToken, "viewer", "token.revoke", None),
        (OrganizationKey, "admin", "api_key.revoke", "organization"),
        (EnrollmentToken, "project_admin", "enrollment_token.revoke", "environment"),
        (AgentKey, "operator", "agent_key.revoke", "environment"),
    ],
)
def test_credential_can_be_revoked_once(world: World, model: Any, who: str, action: str, scope: str | None) -> None:
    made = fill(world)
    person = getattr(world, who)
    row = model.objects.filter(user=person.user).get() if model is UserToken else model.objects.get()

    signed_in(person.user).post(act(row, "revoke"), YES)
    again = signed_in(person.user).post(act(row, "revoke"), YES, follow=True)

    row.refresh_from_db()
    assert row.revoked_at is not None
    assert shown_messages(again) == [("error", f"{row}: This credential is already revoked.")]
    event = AuditEvent.objects.filter(action=action).earliest(
        "id"
    )  # the audit event of a user token also has a copy in the organization
    assert event.actor_display == person.actor.display
    assert event.organization_id == (world.organization.pk if scope else None)
    assert event.environment_id == (made.deployment.environment_id if scope == "environment" else None)


def test_agent_key_revoked_in_console_is_refused(world: World) -> None:
    made = fill(world)
    url = f"/api/v1/agents/{made.agent.pk}/deployment"
    assert made.agent_api.get(url).status_code == 200

    signed_in(world.operator.user).post(act(AgentKey.objects.get(), "revoke"), YES)

    assert made.agent_api.get(url).status_code == 401


def test_agent_can_be_decommissioned(world: World) -> None:
    made = fill(world)

    signed_in(world.operator.user).post(act(made.agent, "revoke"), YES)

    made.agent.refresh_from_db()
    assert made.agent.decommissioned_at is not None
    assert AgentKey.objects.get().revoked_at is not None


@pytest.mark.parametrize(
    ("name", "states"),
    [("rotate_signing_key", ["active", "next"]), ("rotate_signing_key_at_once", ["retiring", "active"])],
)
def test_signing_key_can_be_rotated_and_inactive_key_retired(world: World, name: str, states: list[str]) -> None:
    client = signed_in(world.admin.user)
    asked = {**YES, "_form": client.get(act(world.organization, name)).context["form_id"]}
    made, again = (client.post(act(world.organization, name), asked) for _ in range(2))  # a double click

    assert made["Location"] == again["Location"] == row_page(SigningKey.objects.latest("id"))
    assert list(SigningKey.objects.order_by("id").values_list("status", flat=True)) == states
    first, second = SigningKey.objects.order_by("id")
    signing, other = (first, second) if "next" in states else (second, first)
    assert act(signing, "retire") not in client.get(row_page(signing)).text
    assert act(other, "retire") in client.get(row_page(other)).text
    client.post(act(other, "retire"), {**YES, "comment": "leaked"})
    other.refresh_from_db()
    assert other.status == "retired"
    assert AuditEvent.objects.get(action="signing_key.retire").changes["reason"] == "leaked"


@pytest.mark.parametrize("kind", ["project", "environment"])
def test_deletion_page_counts_rows_that_are_then_deleted(world: World, run_jobs: Callable[[], int], kind: str) -> None:
    made = fill(world)
    row: Any = world.project if kind == "project" else made.deployment.environment
    client = signed_in(world.project_admin.user)

    asked = client.get(act(row, "delete"))

    ((_, counts),) = asked.context["goes"]
    below = {title: count for title, count in titled_counts(made.environment).items() if count} | {
        "Agent keys": 1, "Heartbeats": 1, "Assignments": 1, "Approval decisions": 1, "Deployment agents": 1,
        "Agent reports": 1, "Timeline entries": 5,
    }  # fmt: skip
    assert dict(counts) == ({"Environments": 4, **below} if kind == "project" else below)
    assert Deployment.objects.count() == 1
    done = client.post(act(row, "delete"), YES, follow=True)
    assert done.redirect_chain == [(table(type(row)), 302)]
    row.refresh_from_db()
    assert row.deleted_at is not None
    run_jobs()
    assert not type(row).objects.filter(pk=row.pk).exists()
    assert (Deployment.objects.count(), Project.objects.count()) == (0, 0 if kind == "project" else 1)
    assert AuditEvent.objects.get(action=f"{kind}.delete").actor_display == world.project_admin.actor.display


def test_unknown_act_is_not_found(world: World) -> None:
    assert signed_in(world.admin.user).get(act(world.dev, "explode")).status_code == 404


def test_act_on_more_than_100_rows_is_refused(world: World) -> None:
    made = Approval.objects.bulk_create(
        Approval(
            environment=world.prod, requested_by="x", spec_hash="sha256:x", required_approvals=1,
            allow_self_approval=False, expires_at=world.organization.created_at,
        )
        for _ in range(101)
    )  # fmt: skip
    rows = [str(row.pk) for row in made]

    refused = signed_in(world.reviewer.user).post(
        table(Approval), {"action": "approve", "_selected_action": rows, **YES}, follow=True
    )

    assert shown_messages(refused) == [("error", "You selected more than 100 rows. Select at most 100.")]
    assert not ApprovalDecision.objects.exists()


def test_webhook_can_be_tested_and_delivery_redelivered(world: World, other: World) -> None:
    fill(world)
    webhook, delivery = Webhook.objects.get(), WebhookDelivery.objects.get()
    admin, stranger = signed_in(world.admin.user), signed_in(other.admin.user)

    for row, name in ((webhook, "test"), (delivery, "redeliver")):
        assert signed_in(world.operator.user).post(act(row, name), YES).status_code == 403
        assert stranger.post(act(row, name), YES).status_code == 404
        assert AuditEvent.objects.filter(action__in=["webhook.ping", "webhook.redeliver"]).count() == 0
    for row, name in ((webhook, "test"), (delivery, "redeliver")):
        assert admin.post(act(row, name), YES, follow=True).status_code == 200

    delivery.refresh_from_db()
    assert (delivery.status, webhook.deliveries.count()) == ("pending", 2)
    actors = AuditEvent.objects.filter(action__in=["webhook.ping", "webhook.redeliver"]).values_list("actor_display")
    assert list(actors) == [(world.admin.user.email,)] * 2


def test_operator_can_request_capture_and_agent_page_shows_status_of_capture(world: World) -> None:
    agent, api = world.agent()
    client = signed_in(world.operator.user)
    form = {"reason": "p99 is <high>", "last_n": "500"}

    done = sent(client, agent, "capture", form, follow=True)

    row = RequestedCapture.objects.get()
    assert done.redirect_chain == [(row_page(row), 302)]
    assert shown_messages(done) == [("success", "Requested capture of agent created.")]
    assert (row.reason, row.last_n, row.requested_by) == ("p99 is <high>", 500, "operator@acme.example")
    assert dict(done.context["summary"]["facts"])["Last records"] == "500"
    assert "At most one capture a minute can be requested" in sent(client, agent, "capture", form).text
    invalid = sent(client, agent, "capture", {"reason": " ", "last_n": "0"})
    assert set(invalid.context["form"].errors) == {"reason", "last_n"}
    assert RequestedCapture.objects.count() == 1
    assert signed_in(world.viewer.user).get(act(agent, "capture")).status_code == 403
    upload(api, agent, kind="diagnostic", capture_id=str(row.pk))
    page = signed_in(world.viewer.user).get(row_page(agent))
    panel = page.context["summary"]["panels"][-1]
    assert (panel["title"], len(panel["rows"])) == ("Captures", 1)
    _, reason, status, _ = panel["rows"][0]
    assert (">uploaded<" in status, reason, ">Diagnostic<" in status) == (True, "p99 is <high>", True)
    assert "p99 is &lt;high&gt;" in page.text
