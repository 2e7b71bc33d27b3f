"""The console's messages about acts: they state what happened."""

from __future__ import annotations

from typing import Any

import pytest

from apps.console.frame import site
from apps.console.frame.acts import what_happened
from apps.fleet.models import Agent
from byteor_cloud import urls  # noqa: F401  it registers the console's tables
from tests.browser.confirmed import YES, shown_messages
from tests.browser.filled import act, signed_in, superuser, table
from tests.browser.test_environment_settings import filled_in
from tests.browser.test_people import sent
from tests.worlds import World

MESSAGES = {
    ("notifications.chatwebhook", "test"): "Test of X queued",
    ("notifications.chatwebhook", "edit"): "X changed",
    ("notifications.chatwebhook", "enable"): "X enabled",
    ("notifications.chatwebhook", "disable"): "X disabled",
    ("notifications.chatwebhook", "delete"): "X deleted",
    ("tenancy.user", "create_token"): "X created",
    ("tenancy.user", "create_organization"): "X created",
    ("tenancy.organization", "create_project"): "X created",
    ("tenancy.organization", "create_key"): "X created",
    ("tenancy.organization", "invite"): "X added",
    ("tenancy.organization", "rotate_signing_key"): "X created",
    ("tenancy.organization", "rotate_signing_key_at_once"): "X created",
    ("tenancy.organization", "set_quotas"): "Quotas of X changed",
    ("tenancy.organization", "create_chat_webhook"): "X created",
    ("tenancy.organization", "notification_defaults"): "E-mail defaults of X changed",
    ("tenancy.project", "create_chat_webhook"): "X created",
    ("tenancy.membership", "invite_again"): "X invited again",
    ("releases.approval", "remind"): "People who can decide on X notified",
    ("releases.deployment", "remind"): "People who can decide on X notified",
    ("tenancy.project", "create_environment"): "X created",
    ("tenancy.project", "invite"): "X added",
    ("tenancy.project", "delete"): "X deleted",
    ("tenancy.environment", "create_enrollment_token"): "X created",
    ("tenancy.environment", "resume_offers"): "Offers in X resumed",
    ("tenancy.environment", "settings"): "Settings of X changed",
    ("tenancy.environment", "move"): "X moved",
    ("tenancy.environment", "delete"): "X deleted",
    ("tenancy.membership", "change_role"): "Role of X changed",
    ("tenancy.membership", "remove"): "X removed",
    ("tenancy.usertoken", "revoke"): "X revoked",
    ("tenancy.organizationkey", "revoke"): "X revoked",
    ("tenancy.signingkey", "retire"): "X retired",
    ("tenancy.organization", "create_webhook"): "X created",
    ("tenancy.webhook", "test"): "Test of X queued",
    ("tenancy.webhook", "edit"): "X changed",
    ("tenancy.webhook", "rotate_secret"): "Signing secret of X rotated",
    ("tenancy.webhook", "enable"): "X enabled",
    ("tenancy.webhook", "disable"): "X disabled",
    ("tenancy.webhook", "delete"): "X deleted",
    ("tenancy.webhookdelivery", "redeliver"): "X queued again",
    ("fleet.enrollmenttoken", "revoke"): "X revoked",
    ("fleet.agentkey", "revoke"): "X revoked",
    ("fleet.agent", "drain"): "X drained",
    ("fleet.agent", "undrain"): "X undrained",
    ("fleet.agent", "capture"): "X created",
    ("fleet.agent", "relabel"): "Labels of X changed",
    ("fleet.agent", "rotate_key"): "Key rotation requested for X",
    ("fleet.agent", "revoke"): "X decommissioned",
    ("releases.approval", "approve"): "X given",
    ("releases.approval", "deny"): "X denied",
    ("releases.approval", "revoke"): "X revoked",
    ("pipelines.draft", "test"): "X requested",
    ("pipelines.version", "test"): "X requested",
    ("releases.configbundle", "clear"): "Known bad cleared for X",
    ("releases.configbundle", "test"): "X requested",
    ("releases.configbundle", "copy"): "X is available in the environment",
    ("releases.regression", "accept"): "Differences accepted in X",
    ("releases.regression", "cancel"): "X canceled",
    ("releases.deployment", "approve"): "X approved by you",
    ("releases.deployment", "deny"): "X denied",
    ("releases.deployment", "roll_back"): "Rollback of X started",
    ("releases.deployment", "roll_back_several"): "Rollback of X started",
    ("releases.deployment", "retry"): "X retried",
    ("releases.deployment", "pause"): "X paused",
    ("releases.deployment", "resume"): "X resumed",
    ("releases.deployment", "abort"): "X aborted",
    ("releases.deployment", "next_wave"): "Next wave of X started",
    ("releases.deployment", "change_reviewers"): "Reviewers of X changed",
    ("releases.deploymentagent", "retry"): "X retried",
    ("releases.approval", "accept"): "X given",
    ("releases.approval", "approve_wave"): "X given",
    ("releases.approval", "deny_wave"): "X denied",
    ("artifacts.artifact", "replay"): "X requested",
    ("artifacts.artifact", "execute"): "X requested",
    ("artifacts.artifact", "bisect"): "X requested",
    ("artifacts.artifact", "keep"): "X created",
    ("artifacts.replay", "again"): "X requested",
    ("artifacts.replay", "other"): "X requested",
    ("artifacts.replay", "bisect"): "X requested",
    ("artifacts.replay", "keep"): "X created",
    ("artifacts.replay", "cancel"): "X canceled",
    ("artifacts.fixture", "edit"): "X changed",
    ("artifacts.fixture", "delete"): "X deleted",
    ("procrastinate.procrastinatejob", "retry"): "X queued again",
}


def test_every_act_has_success_message() -> None:
    acts = {(model._meta.label_lower, act.name): act for model, admin in site._registry.items() for act in admin.acts}

    assert {key: what_happened(act, "X") for key, act in acts.items()} == MESSAGES
    assert [key for key, act in acts.items() if act.label in MESSAGES[key]] == []


def test_success_message_starts_with_capital_letter_or_number() -> None:
    (drain,) = [act for act in site._registry[Agent].acts if act.name == "drain"]

    assert what_happened(drain, "agent edge-1") == "Agent edge-1 drained"
    assert what_happened(drain, "3 agents") == "3 agents drained"


@pytest.mark.django_db
def test_success_message_names_single_changed_row_but_counts_several(world: World) -> None:
    rows = [world.agent(name=name)[0] for name in ("a", "b", "c")]
    client = signed_in(world.operator.user)

    def drain(*chosen: Agent) -> list[tuple[str, str]]:
        form = {"action": "drain", "_selected_action": [str(row.pk) for row in chosen], **YES}
        return shown_messages(client.post(table(Agent), form, follow=True))

    assert drain(rows[0]) == [("success", "Agent a drained.")]
    refusal = ("error", "a: The agent is already drained.")
    assert sorted(drain(*rows)) == [refusal, ("success", "2 agents drained.")]
    assert drain(rows[0]) == [refusal]


@pytest.mark.django_db
def test_saving_same_values_reports_that_nothing_changed(world: World) -> None:
    row = world.agent(world.dev, zone="eu")[0]
    member = world.organization.memberships.get(user=world.viewer.user)
    admin, operator = signed_in(world.admin.user), signed_in(superuser())

    def posted(form: dict[str, Any]) -> list[tuple[str, str]]:
        return shown_messages(admin.post(table(Agent), {"action": "relabel", **YES, **form}, follow=True))

    responses = [
        admin.post(act(row, "relabel"), {**YES, "comment": "zone=eu"}, follow=True),
        sent(admin, member, "change_role", {"role": "viewer"}, follow=True),
        sent(admin, world.dev, "settings", filled_in(world.dev), follow=True),
        sent(operator, world.organization, "set_quotas", {"agents": ""}, follow=True),
    ]

    assert [shown_messages(each) for each in responses] == [[("info", "Nothing changed.")]] * 4
    labels = {"_selected_action": [str(row.pk)], "comment": "zone=us"}
    assert posted(labels) == [("success", "Labels of agent agent changed.")]
    assert posted({**labels, "_selected_action": [str(world.dev.pk)]}) == [("info", "Nothing changed.")]
