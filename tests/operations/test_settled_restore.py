"""A restore stops pending work that may have been done after the backup, or makes it wait for a person.

It also invalidates sessions, sign-in links and enrollment tokens, and is recorded in each ledger. While it is
unfinished, ``migrate`` and ``bootstrap`` are refused.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.fleet.models import Agent, EnrollmentToken
from apps.notifications.models import ChatDelivery, Notification
from apps.operations.services import restores
from apps.releases.models import Approval, Deployment
from apps.releases.services import assignments
from apps.tenancy.models import (
    AuditEvent,
    AuditSeal,
    DeviceSignIn,
    Host,
    MessageEvent,
    SignInLink,
    WebhookDelivery,
)
from apps.tenancy.services import accounts, device_sign_ins, hosts, ledger
from byteor.engine.hash_chain import GENESIS
from byteor_cloud.backup import unfinished
from byteor_cloud.backup.unfinished import Unfinished
from byteor_cloud.errors import DeviceSignInError
from byteor_cloud.ids import uuid7
from tests.operations.test_commands import run
from tests.releases import stories
from tests.releases import test_break_glass as break_glass
from tests.releases.stories import Run, report_from_all, run_sweep, state, waves
from tests.resources import Place, chat_webhooks, webhooks
from tests.worlds import Api, World, report

pytestmark = pytest.mark.django_db
BACKUP_AT = datetime(2026, 11, 29, 8, 30, tzinfo=UTC)
BACKUP = restores.Backup("20261129T083000Z-0a1b2c", BACKUP_AT, f"sha256:{'ab' * 32}")


def polled(agent: Agent, api: Api) -> str | None:
    """Return the id of the deployment that a poll offers, or None. Also check that a heartbeat offers the same."""
    offered = api.get(f"/api/v1/agents/{agent.pk}/deployment").json()["desired"]
    beat = {"status": "healthy", "agent_version": "1"}
    desired = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", beat).json()["desired"]
    assert (offered and offered["deployment_id"]) == (desired and desired["deployment_id"])
    return offered and str(offered["deployment_id"])


def enroll_late(world: World) -> tuple[Agent, Api]:
    """Enroll an agent with a new token, because the restore has revoked the token that ``world.agent`` uses."""
    response = Api(world.enrollment_token()).post(world.path(rest="/agents"), {"name": "late"})
    assert response.status_code == 201, response.content
    made = response.json()
    return Agent.objects.get(pk=made["agent_id"]), Api(made["api_key"])


def held(world: World, api: Api | None = None) -> Any:
    return (api or world.viewer.api).get(world.path(rest="/held-offers"))


def resume(world: World, api: Api | None = None) -> Any:
    return (api or world.operator.api).post(world.path(rest="/held-offers/resume"), {"reason": "checked"})


def test_unused_approvals_are_revoked_by_restore(world: World, run_jobs: Run) -> None:
    world.agent(world.prod)
    bundle = world.bundle(world.prod)
    later = timezone.now() + timedelta(days=1)
    deployment = world.deployment(bundle, start_at=later)
    decision = {"deployment_id": str(deployment.pk), "decision": "approve"}
    approved = world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).json()

    settled = restores.settle(BACKUP)
    run_jobs()

    assert settled.counts["approvals_revoked"] == 1
    assert Approval.objects.get(pk=approved["id"]).status == "revoked"
    assert state(deployment) == ("failed", "approval_revoked")
    body = {
        "config_bundle_id": str(bundle.pk), "target": {"all": True}, "strategy": {"kind": "all_at_once"},
        "start_at": later.isoformat(), "approval": approved["credential"],
    }  # fmt: skip
    refused = world.operator.api.post(world.path(world.prod, "/deployments"), body)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:byteor:problem:approval.revoked")


def test_pending_approval_is_kept_and_can_be_decided_after_restore(world: World, run_jobs: Run) -> None:
    world.agent(world.prod)
    pending = world.deployment(world.bundle(world.prod))

    settled = restores.settle(BACKUP)
    run_jobs()

    assert settled.counts["approvals_revoked"] == 0
    assert state(pending) == ("pending_approval", "")
    decision = {"deployment_id": str(pending.pk), "decision": "approve"}
    assert world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).status_code == 201
    run_jobs()
    assert state(pending) == ("deploying", "")


def test_break_glass_gets_full_time_for_its_approval_after_restore(world: World, run_jobs: Run) -> None:
    world.agent(world.prod)
    urgent = {"config_bundle_id": str(world.bundle(world.prod).pk), "target": {"all": True},
              "strategy": {"kind": "all_at_once"}, "break_glass": {"reason": "outage"}}  # fmt: skip
    made = world.admin.api.post(world.path(world.prod, "/deployments"), urgent).json()
    run_jobs()
    deployment = Deployment.objects.get(pk=made["id"])
    Approval.objects.update(expires_at=BACKUP_AT)

    restores.settle(BACKUP)
    run_sweep(run_jobs)

    approval = Approval.objects.get()
    assert approval.status == "pending"
    assert approval.expires_at > timezone.now() + timedelta(seconds=deployment.policy.approval_ttl_s - 600)
    deployment.refresh_from_db()
    assert deployment.break_glass is not None
    assert deployment.break_glass.approve_by == approval.expires_at


def test_denied_break_glass_is_rolled_back_when_person_resumes_offers(world: World, run_jobs: Run) -> None:
    agents, earlier, bundle = break_glass.before(world, run_jobs)
    urgent = break_glass.deploy(world, bundle)
    run_jobs()
    report_from_all(agents, "active", run_jobs)
    break_glass.decide(world, world.reviewer, urgent, "deny", comment="no")  # the job of the decision has not run yet

    restores.settle(replace(BACKUP, created_at=timezone.now()))
    run_sweep(run_jobs)

    assert state(urgent) == ("active", "")
    assert [polled(*each) for each in agents] == [None, None]

    resumed = world.admin.api.post(world.path(world.prod, "/held-offers/resume"), {"reason": "checked"})
    run_jobs()

    assert resumed.status_code == 200
    urgent.refresh_from_db()
    assert (urgent.status, urgent.restores) == ("rolling_back", earlier)
    assert [polled(*each) for each in agents] == [str(urgent.pk)] * 2


def test_break_glass_that_person_denies_after_restore_is_rolled_back(world: World, run_jobs: Run) -> None:
    agents, earlier, bundle = break_glass.before(world, run_jobs)
    urgent = break_glass.deploy(world, bundle)
    run_jobs()
    report_from_all(agents, "active", run_jobs)
    restores.settle(replace(BACKUP, created_at=timezone.now()))

    break_glass.decide(world, world.reviewer, urgent, "deny", comment="no")
    run_jobs()

    urgent.refresh_from_db()
    assert (urgent.status, urgent.restores) == ("rolling_back", earlier)
    assert [polled(*each) for each in agents] == [str(urgent.pk)] * 2


def test_deployment_that_was_not_offered_is_aborted_by_restore(world: World, run_jobs: Run) -> None:
    world.agent()
    waiting = world.deployment(world.bundle())

    restores.settle(BACKUP)
    run_sweep(run_jobs)

    assert state(waiting) == ("failed", "aborted")
    assert waiting.detail == "restored from a backup"


def test_rollout_is_paused_by_restore_until_person_resumes_it(world: World, run_jobs: Run) -> None:
    agents, (_, two), _ = stories.running(world, 2)
    (first, first_api), (second, second_api) = agents
    rollout = stories.offered(world, two, strategy=waves(50, 100))
    assert polled(first, first_api) == str(rollout.pk)

    settled = restores.settle(BACKUP)
    stories.set_offered_ago(rollout, 100_000, first)
    run_sweep(run_jobs)

    assert (settled.counts["deployments_paused"], settled.counts["offers_held"]) == (1, 2)
    assert [polled(*each) for each in agents] == [None, None]
    assert state(rollout) == ("deploying", "")  # the held offer does not time out
    paused = AuditEvent.objects.get(action="deployment.pause")
    assert (paused.changes, paused.actor_display) == ({"reason": "restored from a backup"}, "system:restore")

    resumed = world.operator.api.post(world.path(rest=f"/deployments/{rollout.pk}/resume"), {})
    run_sweep(run_jobs)

    assert resumed.status_code == 200
    assert [polled(*each) for each in agents] == [str(rollout.pk), None]  # the second agent's offer is still held
    assert report(first_api, first, "active").status_code == 200
    run_jobs()
    assert polled(second, second_api) == str(rollout.pk)


def test_rollback_waits_after_restore_until_person_resumes_offers(world: World, run_jobs: Run) -> None:
    agents, _, (_, second) = stories.running(world, 1, 2)
    world.operator.api.post(world.path(rest=f"/deployments/{second.pk}/rollback"), {"reason": "slow"})
    run_jobs()
    assert state(second)[0] == "rolling_back"

    restores.settle(BACKUP)
    stories.set_offered_ago(second, 100_000, agents[0][0])
    run_sweep(run_jobs)

    assert (state(second)[0], polled(*agents[0])) == ("rolling_back", None)
    assert resume(world).status_code == 200
    assert polled(*agents[0]) == str(second.pk)
    report_from_all(agents, "rolled_back", run_jobs)
    assert state(second)[0] == "rolled_back"


def test_held_offers_reach_agents_when_person_resumes_them(world: World, run_jobs: Run) -> None:
    agents, _, (deployment,) = stories.running(world, 2)

    restores.settle(BACKUP)
    late = enroll_late(world)
    run_sweep(run_jobs)

    assert [polled(*each) for each in [*agents, late]] == [None] * 3
    assert held(world).json() == {"agents": 2, "backup_at": "2026-11-29T08:30:00Z"}
    assert resume(world, world.viewer.api).status_code == 403
    assert held(world).json()["agents"] == 2

    assert resume(world).json() == {"agents": 0, "backup_at": None}

    assert [polled(*each) for each in [*agents, late]] == [str(deployment.pk)] * 3
    event = AuditEvent.objects.get(action="environment.resume_offers")
    assert (event.actor_display, event.changes) == (world.operator.user.email, {"reason": "checked", "agents": 2})
    again = resume(world)
    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:offers.not_held")


def test_late_joiners_get_offers_when_last_agent_with_held_offer_is_decommissioned(world: World, run_jobs: Run) -> None:
    agents, _, (deployment,) = stories.running(world, 2)
    restores.settle(BACKUP)
    late = enroll_late(world)

    offers = []
    for agent, _ in agents:
        run_jobs()
        offers.append(polled(*late))
        assert world.admin.api.delete(world.path(rest=f"/agents/{agent.pk}")).status_code == 204
    assert offers == [None, None]

    run_jobs()
    assert polled(*late) == str(deployment.pk)
    assert not ProcrastinateJob.objects.filter(task_name="releases.offer_after_hold").exists()


def test_environment_page_says_that_offers_are_held(world: World) -> None:
    stories.running(world, 2)
    client = Client()
    client.force_login(world.operator.user, backend="apps.tenancy.sessions.Accounts")
    path = f"/admin/tenancy/environment/{world.dev.pk}/change/"
    assert "Resume offers" not in client.get(path).text

    assignments.hold_all(BACKUP_AT)

    page = client.get(path).text
    assert "Restored from a backup of 2026-11-29 08:30 UTC" in page
    assert "Offers to 2 agents are held." in page
    assert "Resume offers" in page


def test_new_deployment_replaces_held_offers_of_its_agents(world: World, run_jobs: Run) -> None:
    agents, (_, two), _ = stories.running(world, 2)

    restores.settle(BACKUP)
    chosen = {"agents": [str(agents[0][0].pk)]}
    deployment = stories.offered(world, two, target=chosen)

    assert [polled(*each) for each in agents] == [str(deployment.pk), None]
    report_from_all(agents[:1], "active", run_jobs)
    assert state(deployment) == ("active", "")
    assert held(world).json()["agents"] == 1


def test_aborted_deployment_does_not_bring_held_offers_back(world: World, run_jobs: Run) -> None:
    agents, (_, two), _ = stories.running(world, 2)
    restores.settle(BACKUP)
    deployment = stories.offered(world, two)
    assert [polled(*each) for each in agents] == [str(deployment.pk)] * 2

    stories.command(world.operator.api, world, deployment, "abort", reason="wrong version")
    run_sweep(run_jobs)

    assert state(deployment) == ("failed", "aborted")
    assert [polled(*each) for each in agents] == [None, None]


@pytest.mark.parametrize("is_before_restore", [True, False])
def test_decommissioned_agent_does_not_hold_up_rollback(world: World, run_jobs: Run, is_before_restore: bool) -> None:
    agents, _, (_, second) = stories.running(world, 2, 2)
    stories.roll_back(world, second)
    run_jobs()

    def settle() -> None:
        assert restores.settle(BACKUP).counts["offers_held"] == (1 if is_before_restore else 2)

    def decommission() -> None:
        path = world.path(rest=f"/agents/{agents[0][0].pk}")
        assert world.admin.api.delete(path).status_code == 204
        run_jobs()

    for step in (decommission, settle) if is_before_restore else (settle, decommission):
        step()
    assert resume(world).status_code == 200
    report_from_all(agents[1:], "rolled_back", run_jobs)
    run_sweep(run_jobs)

    assert state(second)[0] == "rolled_back"


def test_bundle_of_held_offer_cannot_be_downloaded(world: World) -> None:
    # ``stories.running`` may reuse recorded rows, whose stored bundle an earlier test may have deleted.
    fleet = stories.fleet(world, 1)
    stories.active(world, world.bundle(), fleet)
    [(agent, api)] = fleet
    path = f"/api/v1/agents/{agent.pk}"
    offer = api.get(f"{path}/deployment").json()["desired"]

    def download() -> int:
        response = api.get(f"{path}/deployment/bundle?hash={offer['bundle_hash']}")
        if response.streaming:
            response.getvalue()  # reading to the end closes the file
        return int(response.status_code)

    assert download() == 200
    restores.settle(BACKUP)
    assert download() == 409
    resume(world)
    assert download() == 200


def test_poll_with_old_etag_gets_offer_after_person_resumes_offers(world: World) -> None:
    [(agent, api)] = stories.running(world, 1)[0]
    restores.settle(BACKUP)
    path = f"/api/v1/agents/{agent.pk}/deployment"
    tag = api.get(path)["ETag"]

    resume(world)

    changed = api.get(path, If_None_Match=tag)
    assert (changed.status_code, changed.json()["desired"] is None) == (200, False)


def test_restore_invalidates_sessions_sign_in_links_and_enrollment_tokens(world: World) -> None:
    SignInLink.objects.all().delete()
    client = Client()
    client.force_login(world.admin.user, backend="apps.tenancy.sessions.Accounts")
    assert client.get("/admin/").status_code == 200
    link = accounts.create_sign_in_link(user=world.admin.user, actor=world.admin.actor)
    started = device_sign_ins.start(client_name="laptop", ip="127.0.0.1")
    token = world.enrollment_token()
    hosts.announce(uuid7())

    counts = restores.settle(BACKUP).counts

    assert (counts["sessions_ended"], counts["links_expired"]) == (1, 1)
    assert client.get("/admin/").status_code == 302
    assert Client().post(f"/auth/link/{link}").status_code != 302
    with pytest.raises(DeviceSignInError, match="unknown or expired"):
        device_sign_ins.collect(started.device_code, request_id="", ip=None)
    enrolled = Api(token).post(world.path(rest="/agents"), {"name": "late"})
    assert enrolled.status_code == 401
    assert EnrollmentToken.objects.usable().count() == 0
    assert [model.objects.count() for model in (Session, DeviceSignIn, Host)] == [0, 0, 0]
    assert SignInLink.objects.get().used_at is None


def test_user_tokens_and_agent_keys_stay_valid_after_restore(world: World) -> None:
    agent, api = world.agent()

    restores.settle(BACKUP)

    assert world.viewer.api.get("/api/v1/me").status_code == 200
    assert polled(agent, api) is None


def test_pending_messages_are_not_sent_after_restore(world: World, run_jobs: Run) -> None:
    place, now = Place(world, world.dev), timezone.now()
    event = AuditEvent.objects.filter(organization=world.organization).latest("id")
    hook = WebhookDelivery.objects.create(webhook=webhooks.webhook(place), event=event, next_attempt_at=now)
    message = MessageEvent.objects.create(
        organization=world.organization, type="key.expires", resource_kind="organizationkey", resource_id=str(uuid7())
    )
    chat = ChatDelivery.objects.create(webhook=chat_webhooks.chat_webhook(place), event=message, next_attempt_at=now)
    mail = Notification.objects.create(user=world.admin.user, event=message, mail="now", mail_due_at=now)

    restores.settle(BACKUP)

    for each in (hook, chat, mail, message):
        each.refresh_from_db()
    assert (hook.status, hook.next_attempt_at, hook.attempts[-1]["error"]) == ("failed", None, "restored")
    assert (chat.status, chat.next_attempt_at) == ("failed", None)
    assert (mail.mail_due_at, mail.mailed_at) == (None, None)
    assert "restored from a backup" in mail.mail_error
    assert (message.outcome, MessageEvent.objects.filter(outcome="pending").count()) == ("obsolete", 0)


def test_restore_is_recorded_in_each_ledger_with_last_event_of_backup(world: World, other: World) -> None:
    restores.settle(BACKUP)

    heads = {each.organization_id: each for each in AuditSeal.objects.order_by("seq")}
    for event in AuditEvent.objects.filter(action="backup.restore"):
        head = heads.get(event.organization_id)
        last = (head.seq, head.hash) if head else (0, GENESIS)
        assert (event.changes["seq"], event.changes["hash"]) == last
        assert (event.resource_id, event.changes["created_at"]) == (BACKUP.name, "2026-11-29T08:30:00Z")
    owners = AuditEvent.objects.filter(action="backup.restore").values_list("organization_id", flat=True)
    assert set(owners) == {None, world.organization.pk, other.organization.pk}
    ledger.seal_all()
    for owner in owners:
        assert list(ledger.Verification(owner).faults()) == []


def test_migrate_and_bootstrap_are_refused_while_restore_is_unfinished() -> None:
    unfinished.mark(Unfinished("20261129T083000Z-0a1b2c", BACKUP.manifest_hash))

    with pytest.raises(CommandError, match="restore of the backup 20261129T083000Z-0a1b2c into this database is unfin"):
        call_command("migrate", verbosity=0)
    with pytest.raises(CommandError, match=r"run manage\.py restore again"):
        run("bootstrap", "--org", "Acme", "--email", "ada@acme.example")

    unfinished.remove_mark()
    call_command("migrate", verbosity=0)


def test_migrate_is_refused_if_restore_was_killed_while_migrate_waited_for_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    restore = Unfinished("20261129T083000Z-0a1b2c", BACKUP.manifest_hash)
    monkeypatch.setattr("apps.operations.management.commands.migrate._take_lock", lambda _: unfinished.mark(restore))

    with pytest.raises(CommandError, match=r"run manage\.py restore again"):
        call_command("migrate", verbosity=0)
