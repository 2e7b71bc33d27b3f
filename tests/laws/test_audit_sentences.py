"""The console shows every audit event as a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.utils.html import strip_tags

from apps.console.frame.console_user import ConsoleUser
from apps.console.pages.audit_sentences import PHRASES, RESOURCES, describe_event, with_subjects
from apps.tenancy.models import AuditEvent
from apps.tenancy.services import audit
from byteor.engine.machines import MACHINES
from tests.browser.filled import fill
from tests.worlds import World

EVERYBODY = ConsoleUser(None, True, {})  # a person who may open every page
APPS = Path(__file__).parents[2] / "apps"
# The actions of audit events that are not transitions of a state machine. Installations have stored them.
STORED = {
    "account": "claim create lose_address",
    "agent": "clear_clone_suspicion decommission drain enroll label request_key_rotation supersede undrain update",
    "agent_key": "create revoke",
    "api_key": "create revoke",
    "approval": "decision.approve decision.deny remind request",
    "artifact": "expire receive reduce requeue",
    "backup": "create restore",
    "bisect": "request",
    "capture": "request upload_late",
    "chat_webhook": "create delete disable test update",
    "config": "bar clear",
    "config_bundle": "create",
    "deployment": "change_reviewers create hold next_wave pause resume",
    "device_sign_in": "allow deny",
    "draft": "create delete update",
    "enrollment_token": "create revoke",
    "environment": "create delete resume_offers update",
    "fixture": "create current_fails delete expect_accepted expire update",
    "installation_operator": "grant revoke",
    "job": "retry",
    "master_key": "rotate store",
    "member": "add invite remove update",
    "notification_settings": "update",
    "organization": "create set_quotas update",
    "project": "create delete update",
    "regression": "accept request",
    "replay": "request",
    "session": "sign_in sign_out",
    "sign_in_link": "create",
    "signing_key": "activate create retire supersede",
    "token": "create revoke",
    "version": "create",
    "webhook": "create delete disable ping redeliver rotate_secret update",
}
ACTIONS = {f"{kind}.{verb}" for kind, verbs in STORED.items() for verb in verbs.split()} | {
    f"{machine.name}.{event}" for machine in MACHINES for event in machine.events
}
# Code that names an action as a string: calls that record an event, arguments and variables.
RECORDED = re.compile(
    r"(?:audit\.(?:record|record_of_person|Entry)|record_credential)\(\s*\"([\w.]+)\""
    r"|\baction=\"(\w+\.[\w.]+)\"|\b(?:action|else) = ?\"(\w+\.[\w.]+)\""
)
EDITED = re.compile(r"\bedit\([^)]*?kind=\"(\w+)\"", re.DOTALL)
NOTED = re.compile(r"\brecord_event\(\w+, \"(\w+)\"")


def recorded() -> set[str]:
    """Return the actions that the source code names."""
    text = "\n".join(path.read_text() for path in APPS.rglob("*.py") if path.parent.name != "migrations")
    found = {name for names in RECORDED.findall(text) for name in names if name}
    found |= {f"{kind}.update" for kind in EDITED.findall(text)}
    return found | {f"deployment.{event}" for event in NOTED.findall(text)}


def test_exactly_listed_actions_have_phrases_and_no_other_action_is_recorded() -> None:
    assert set(PHRASES) == ACTIONS
    assert len(recorded()) > 60
    assert recorded() <= ACTIONS
    assert [phrase for phrase in PHRASES.values() if phrase.count("{}") > 1 or phrase.endswith(".")] == []


@pytest.mark.django_db
def test_recorded_events_have_sentences_without_unfilled_placeholders(world: World) -> None:
    fill(world)

    events = list(with_subjects(AuditEvent.objects.all()))

    assert {each.action for each in events} <= ACTIONS
    assert {each.resource_kind for each in events} <= RESOURCES
    for each in events:
        sentence = strip_tags(describe_event(each, EVERYBODY))
        assert "{" not in sentence, sentence
        assert not re.search(r"None|  ", sentence), sentence


@pytest.mark.django_db
def test_sentence_names_actor_and_links_to_resource(world: World) -> None:
    deployment = fill(world).deployment
    where = f"the deployment of {deployment.config_bundle.version} to {deployment.environment}"

    def sentences(action: str) -> list[str]:
        return [describe_event(each, EVERYBODY) for each in with_subjects(AuditEvent.objects.filter(action=action))]

    created = sentences("deployment.create")
    link = f'<a class="text-link" href="/admin/releases/deployment/{deployment.pk}/change/">{where}</a>'
    assert f"{world.operator.user.email} requested {link}" in created
    assert any(strip_tags(each).endswith(f" approved {where}") for each in sentences("approval.decision.approve"))
    assert f"ByteOr Cloud completed {link}" in sentences("deployment.activate")


@pytest.mark.django_db
def test_unknown_actions_denials_and_deleted_resources_have_sentences_without_link(world: World) -> None:
    gone = "01a2001010cd00000000000000000000"
    for action, kind, outcome in (
        ("agent.teach_new_trick", "agent", "success"),
        ("console.drain", "credential", "denied"),
        ("agent.drain", "agent", "success"),
        ("agent.drain", "agent", "error"),
        ("signing_key.retire", "signing_key", "success"),
    ):
        audit.record(action, actor=world.admin.actor, scope=world.organization, resource=(kind, gone), outcome=outcome)

    events = with_subjects(AuditEvent.objects.order_by("-pk"))[:5]

    who = world.admin.user.email
    assert [describe_event(each, EVERYBODY) for each in reversed(events)] == [
        f"{who}: agent teach new trick",
        f"{who} was denied access: console drain",
        f"{who} drained an agent",
        f'{who} drained an agent <span class="pill bad">error</span>',
        f"{who} retired a signing key",
    ]
    assert all("<a" not in describe_event(each, EVERYBODY) for each in events)


@pytest.mark.django_db
def test_resource_name_in_sentence_is_escaped(world: World) -> None:
    agent, _ = world.agent()
    type(agent).objects.filter(pk=agent.pk).update(name="<b>x</b>")
    audit.record("agent.drain", actor=world.admin.actor, scope=world.dev, resource=("agent", agent.pk))

    [event] = with_subjects(AuditEvent.objects.filter(action="agent.drain"))

    assert "agent &lt;b&gt;x&lt;/b&gt;" in describe_event(event, EVERYBODY)
