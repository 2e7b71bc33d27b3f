"""Who is notified about incidents, agents, webhooks, credentials, quotas and invitations.

The table in this module is written by hand from the intended behavior, not read from the code under test.
``test_audience.py`` has the table of approvals and rollouts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.artifacts.models import Artifact
from apps.fleet.models import Heartbeat
from apps.notifications.models import Notification
from apps.notifications.services.sweeps import agents, credentials, organization
from apps.pipelines.models import Version
from apps.tenancy.models import MessageEvent, Quota
from apps.tenancy.services import quotas, tokens
from tests.artifacts.conftest import store
from tests.artifacts.incidents import ingested
from tests.notifications.fleets import beat, enroll, look, serve, silence, watch
from tests.notifications.people import gather
from tests.notifications.stories import handle
from tests.notifications.test_incidents import age, capture
from tests.notifications.test_sweeps import DAY, expire, make_key, make_webhook
from tests.worlds import World

__all__ = ["store"]
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("store")]


def upload_incident(world: World) -> None:
    if not Version.objects.exists():
        world.version()
    ingested(world, capture())


def upload_incident_after_week(world: World) -> None:
    upload_incident(world)
    handle(world)
    age(timedelta(days=8))
    agent = Artifact.objects.get().agent
    Artifact.objects.all().delete()
    agent.delete()
    upload_incident(world)


def lose_agent(world: World) -> None:
    serve()
    watch()
    (lost, _), _ = enroll(world, "lost", "present")
    look()
    MessageEvent.objects.all().delete()
    silence(lost)
    look()


def let_agent_fail(world: World) -> None:
    serve()
    watch()
    [(agent, api)] = enroll(world, "broken")
    look()
    beat(agent, api, "failed")
    look()


def clone_agent(world: World) -> None:
    [(agent, _)] = enroll(world, "twin")
    Heartbeat.objects.filter(agent=agent).update(clone_suspected_at=timezone.now())
    agents.record_clones()


def let_webhook_fail(world: World) -> None:
    make_webhook(world, timedelta(hours=2))
    organization.record_failing_webhooks()


def let_api_key_age(world: World) -> None:
    make_key(world, left=3 * DAY)
    credentials.record_expiring()


def let_token_age(world: World) -> None:
    token, _ = tokens.create_user_token(user=world.viewer.user, name="laptop", actor=world.viewer.actor)
    expire(token, left=3 * DAY)
    credentials.record_expiring()


def use_quota(world: World) -> None:
    world.agent(world.prod)
    quotas.set_quotas(world.organization, {Quota.AGENTS: 1}, actor=world.admin.actor)
    organization.record_used_quotas()


def invite(world: World) -> None:
    """Do nothing, because ``gather`` has already invited a person."""


@dataclass(frozen=True)
class Case:
    """A cause, its event, the beginning of the message, and when each notified person gets an e-mail by default."""

    event: str
    cause: Callable[[World], None]
    text: str
    mails: dict[str, str]


VIEWERS = dict.fromkeys(["admin", "project_admin", "operator", "reviewer", "viewer", "guest"], "off")
ADMIN = {"admin": "now"}
CASES = [
    Case("incident.new", upload_incident, "Stage check stopped pipeline quotes on agent ", VIEWERS),
    Case("incident.reopened", upload_incident_after_week, "Stage check stopped pipeline quotes on agent ", VIEWERS),
    Case("agents.offline", lose_agent, "Agent lost in prod went offline.", VIEWERS),
    Case("agents.failed", let_agent_fail, "Agent broken in prod failed.", VIEWERS),
    Case("agent.cloned", clone_agent, "Agent twin in prod seems to run on two machines.", VIEWERS),
    Case("webhook.failing", let_webhook_fail, "The webhook to hooks.example.com has been failing since ", ADMIN),
    Case("key.expires", let_api_key_age, "The API key ci of acme expires at ", ADMIN),
    Case("key.expires", let_token_age, "Your token bor_usr_", {"viewer": "now"}),
    Case("quota.near", use_quota, "acme has used up its quota of 1 agent.", ADMIN),
    Case("member.invited", invite, "admin@acme.example invited you to acme as operator.", {"invited": "now"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.event}-{case.cause.__name__}")
def test_event_notifies_exactly_expected_people(world: World, other: World, case: Case) -> None:
    people = gather(world, other)
    if case.event != "member.invited":
        MessageEvent.objects.all().delete()
    case.cause(world)
    handle(world)
    handle(other)

    [event] = MessageEvent.objects.filter(type=case.event)
    assert event.text.startswith(case.text)
    names = {person.user.pk: name for name, person in people.items()}
    notified = Notification.objects.filter(event=event).values_list("user_id", "mail")
    assert {names[user_id]: mail for user_id, mail in notified} == case.mails
