"""Events caused by the passage of time: expiring credentials, failing webhooks, used quotas and last calls.

A last call says that little time is left to decide on the approval of a break-glass deployment.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import EnrollmentToken
from apps.fleet.services import enrollment
from apps.notifications.models import ChatFormat, ChatWebhook
from apps.notifications.services.sweeps import approvals, credentials, organization
from apps.notifications.tasks import sweep
from apps.releases.models import Approval, ConfigBundle
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import MessageEvent, OrganizationKey, Quota, UserToken, Webhook
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import organizations, quotas, tokens, vault
from apps.tenancy.services.webhooks import attempts, subscriptions
from tests.notifications.stories import claim_all, handle, notified_of
from tests.races import Race
from tests.worlds import ALL, World

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def texts(type: MessageType) -> list[str]:
    """Return the sentences of the events of this type about which people were notified, oldest first."""
    events = MessageEvent.objects.filter(type=type, outcome=EventOutcome.NOTIFIED)
    return list(events.order_by("pk").values_list("text", flat=True))


def keys(type: MessageType) -> int:
    return MessageEvent.objects.filter(type=type).count()


@pytest.fixture
def world(world: World) -> World:
    """Return a world in which everybody has signed in, with no events and no tokens that expire soon."""
    claim_all()
    UserToken.objects.update(expires_at=timezone.now() + 300 * DAY)
    MessageEvent.objects.all().delete()
    return world


# -- credentials -----------------------------------------------------------------------------------------------------


def make_key(world: World, name: str = "ci", *, left: timedelta, life: timedelta = 30 * DAY) -> OrganizationKey:
    """Create an API key that expires in ``left`` and was created ``life`` before its expiry."""
    key, _ = tokens.create_organization_key(
        organization=world.organization, name=name, role=Role.OPERATOR, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    )  # fmt: skip
    expire(key, left=left, life=life)
    return key


def expire(credential: Any, *, left: timedelta, life: timedelta = 30 * DAY) -> None:
    expires_at = timezone.now() + left
    type(credential).objects.filter(pk=credential.pk).update(expires_at=expires_at, created_at=expires_at - life)


def test_admins_are_notified_one_week_and_one_day_before_api_key_expires(world: World) -> None:
    key = make_key(world, left=7 * DAY + timedelta(hours=1))
    now = timezone.now()
    credentials.record_expiring(now)
    assert keys(MessageType.KEY_EXPIRES) == 0

    for later in (2 * timedelta(hours=1), 3 * DAY, 5 * DAY, 6.2 * DAY, 6.5 * DAY):
        credentials.record_expiring(now + later)
        credentials.record_expiring(now + later)
    handle(world)

    key.refresh_from_db()
    assert key.expires_at is not None
    expected = f"The API key ci of {world.organization} expires at {key.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
    assert texts(MessageType.KEY_EXPIRES) == [expected] * 2
    assert notified_of(world.admin) == [MessageType.KEY_EXPIRES] * 2
    assert notified_of(world.operator) == []
    assert MessageEvent.objects.latest("pk").path == f"/admin/tenancy/organizationkey/{key.pk}/change/"


def test_expiring_user_token_notifies_only_its_owner_and_message_shows_prefix(world: World) -> None:
    token, _ = tokens.create_user_token(user=world.viewer.user, name="my secret plan", actor=world.viewer.actor)
    expire(token, left=timedelta(hours=5))

    credentials.record_expiring()
    handle(world)

    (text,) = texts(MessageType.KEY_EXPIRES)
    assert text.startswith(f"Your token {token.prefix}… expires at ")
    assert notified_of(world.viewer) == [MessageType.KEY_EXPIRES]
    assert notified_of(world.admin) == []


def test_expiring_enrollment_token_notifies_people_who_can_replace_it(world: World) -> None:
    token, _ = enrollment.create_enrollment_token(environment=world.prod, max_uses=5, actor=world.admin.actor)
    expire(token, left=3 * DAY)

    credentials.record_expiring()
    handle(world)

    (text,) = texts(MessageType.KEY_EXPIRES)
    assert text.startswith(f"The enrollment token {token.prefix}… of prod expires at ")
    assert [notified_of(each) for each in (world.admin, world.project_admin, world.operator)] == [
        [MessageType.KEY_EXPIRES], [MessageType.KEY_EXPIRES], [],
    ]  # fmt: skip


def test_invalid_and_short_lived_credentials_and_those_that_expire_much_later_notify_nobody(world: World) -> None:
    make_key(world, "expired", left=-DAY)
    make_key(world, "short", left=DAY, life=7.9 * DAY)
    make_key(world, "later", left=20 * DAY)
    revoked = make_key(world, "revoked", left=DAY)
    tokens.revoke(revoked, action="api_key.revoke", actor=world.admin.actor, scope=world.organization)
    for environment, uses in ((world.prod, 1), (world.dev, 0)):
        token, _ = enrollment.create_enrollment_token(environment=environment, actor=world.admin.actor)
        expire(token, left=DAY)
        EnrollmentToken.objects.filter(pk=token.pk).update(uses=uses)
    organizations.delete(world.dev, kind="environment", actor=world.admin.actor)

    credentials.record_expiring()

    assert keys(MessageType.KEY_EXPIRES) == 0


def test_token_of_person_who_left_notifies_nobody(world: World) -> None:
    token, _ = tokens.create_user_token(user=world.viewer.user, name="token", actor=world.viewer.actor)
    expire(token, left=DAY)
    world.viewer.user.memberships.all().delete()

    credentials.record_expiring()

    assert keys(MessageType.KEY_EXPIRES) == 0


def test_event_about_key_revoked_meanwhile_is_obsolete(world: World) -> None:
    key = make_key(world, left=DAY)
    credentials.record_expiring()
    tokens.revoke(key, action="api_key.revoke", actor=world.admin.actor, scope=world.organization)
    handle(world)

    assert MessageEvent.objects.get().outcome == EventOutcome.OBSOLETE


# -- webhooks --------------------------------------------------------------------------------------------------------


def make_webhook(world: World, since: timedelta | None, **columns: Any) -> Webhook:
    """Create a webhook that has been failing for ``since``, or that does not fail if ``since`` is None."""
    webhook, _ = subscriptions.create(
        organization=world.organization, url="https://hooks.example.com:8443/secret-path", events=["*"],
        actor=world.admin.actor,
    )  # fmt: skip
    failing_since = None if since is None else timezone.now() - since
    Webhook.objects.filter(pk=webhook.pk).update(failing_since=failing_since, **columns)
    webhook.refresh_from_db()
    return webhook


def make_chat(world: World, since: timedelta) -> ChatWebhook:
    row = ChatWebhook(
        organization=world.organization, name="ops", format=ChatFormat.SLACK, host="chat.example.com",
        failing_since=timezone.now() - since,
    )  # fmt: skip
    with transaction.atomic():
        vault.seal(row, "url", b"https://chat.example.com/secret")
        row.save(force_insert=True)
    return row


def test_webhooks_that_failed_for_an_hour_notify_once_and_only_their_host_is_named(world: World) -> None:
    hour = timedelta(minutes=61)
    webhook, chat = make_webhook(world, hour), make_chat(world, hour)
    for _ in range(2):
        organization.record_failing_webhooks()
    handle(world)

    assert webhook.failing_since is not None
    assert chat.failing_since is not None
    assert texts(MessageType.WEBHOOK_FAILING) == [
        f"The {what} has been failing since {since.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
        for what, since in (
            ("webhook to hooks.example.com", webhook.failing_since),
            ("chat webhook to chat.example.com", chat.failing_since),
        )
    ]
    assert notified_of(world.admin) == [MessageType.WEBHOOK_FAILING] * 2
    assert notified_of(world.project_admin) == []

    Webhook.objects.update(failing_since=timezone.now() - timedelta(minutes=62))
    organization.record_failing_webhooks()
    assert keys(MessageType.WEBHOOK_FAILING) == 3  # another start time means that the webhook worked in between


def test_webhooks_notify_nobody_if_working_disabled_failing_briefly_or_in_deleted_environment(
    world: World,
) -> None:
    make_webhook(world, None)
    make_webhook(world, timedelta(minutes=59))
    make_webhook(world, timedelta(hours=2), enabled=False)
    make_webhook(world, timedelta(hours=2), project=world.project, environment=world.dev)
    organizations.delete(world.dev, kind="environment", actor=world.admin.actor)

    organization.record_failing_webhooks()

    assert keys(MessageType.WEBHOOK_FAILING) == 0


def test_message_about_disabled_webhook_names_only_host(world: World) -> None:
    webhook = make_webhook(world, timedelta(days=3))
    reason = "The receiver returned 410 Gone."
    attempts.disable(webhook, kind="webhook", scope=world.organization, reason=reason, actor=world.admin.actor)
    MessageEvent.objects.update(actor_id=None)
    handle(world)

    assert texts(MessageType.WEBHOOK_FAILING) == ["The webhook to hooks.example.com was disabled."]
    assert MessageEvent.objects.get().path == f"/admin/tenancy/webhook/{webhook.pk}/change/"


def test_event_about_webhook_that_works_again_is_obsolete(world: World) -> None:
    make_webhook(world, timedelta(hours=2))
    organization.record_failing_webhooks()
    Webhook.objects.update(failing_since=None)
    handle(world)

    assert MessageEvent.objects.get().outcome == EventOutcome.OBSOLETE


# -- quotas ----------------------------------------------------------------------------------------------------------


def enroll(world: World, count: int) -> None:
    for number in range(count):
        world.agent(world.prod, f"agent-{timezone.now().timestamp()}-{number}")


def test_quota_notifies_once_at_90_and_once_at_100_percent(world: World) -> None:
    quotas.set_quotas(world.organization, {Quota.AGENTS: 10, Quota.DRAFTS: 0}, actor=world.admin.actor)
    for count in (8, 1, 0, 1, 0):
        enroll(world, count)
        organization.record_used_quotas()
        handle(world)

    name = str(world.organization)
    assert texts(MessageType.QUOTA_NEAR) == [
        f"{name} uses 90 % of its quota of 10 agents.",
        f"{name} has used up its quota of 10 agents.",
    ]
    assert notified_of(world.admin) == [MessageType.QUOTA_NEAR] * 2
    assert notified_of(world.project_admin) == []


def test_quota_notifies_again_only_on_another_day_after_percentage_was_lower(world: World) -> None:
    today = datetime.now(UTC).replace(hour=12, minute=0)
    quotas.set_quotas(world.organization, {Quota.AGENTS: 1}, actor=world.admin.actor)
    enroll(world, 1)
    for later in (timedelta(0), DAY, 2 * DAY):
        organization.record_used_quotas(today + later)
    assert keys(MessageType.QUOTA_NEAR) == 1

    for later in (timedelta(0), DAY):
        quotas.set_quotas(world.organization, {Quota.AGENTS: 100}, actor=world.admin.actor)
        organization.record_used_quotas(today + later)
        quotas.set_quotas(world.organization, {Quota.AGENTS: 1}, actor=world.admin.actor)
        organization.record_used_quotas(today + later)

    assert keys(MessageType.QUOTA_NEAR) == 2


def test_quotas_of_other_tenants_are_independent(world: World, other: World) -> None:
    for each in (world, other):
        quotas.set_quotas(each.organization, {Quota.AGENTS: 1}, actor=each.admin.actor)
    enroll(world, 1)

    organization.record_used_quotas()

    assert MessageEvent.objects.get(type=MessageType.QUOTA_NEAR).organization == world.organization


# -- break-glass -----------------------------------------------------------------------------------------------------


def break_glass(world: World, bundle: ConfigBundle, *, lasts: timedelta, left: timedelta) -> Approval:
    """Request a break-glass deployment. Return its approval, which is valid for ``lasts`` and expires in ``left``."""
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, "break_glass": {"reason": "outage"}}
    response = world.admin.api.post(world.path(bundle.environment, "/deployments"), body)
    assert response.status_code == 201, response.json()
    approval = Approval.objects.get()
    approval.expires_at = timezone.now() + left
    approval.created_at = approval.expires_at - lasts
    approval.save(update_fields=["expires_at", "created_at"])
    return approval


MINUTES = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("lasts", "left", "is_due"),
    [(60 * MINUTES, 14.5 * MINUTES, True), (60 * MINUTES, 16 * MINUTES, False), (10 * MINUTES, 4.5 * MINUTES, True),
     (10 * MINUTES, 6 * MINUTES, False)],
)  # fmt: skip
def test_last_call_is_sent_15_minutes_or_half_of_approval_time_before_deadline(
    world: World, bundle: ConfigBundle, lasts: timedelta, left: timedelta, is_due: bool
) -> None:
    break_glass(world, bundle, lasts=lasts, left=left)
    handle(world)
    for _ in range(2):
        approvals.record_last_calls()
    handle(world)

    found = texts(MessageType.BREAK_GLASS_NEEDED)
    assert len(found) == 1 + is_due
    if is_due:
        start = f"{world.admin.user.email} started the deployment of quotes v1 to 1 agent in prod without approval"
        minutes = int(left / MINUTES)
        assert found[1] == f"Only {minutes} minutes left to approve or deny this break-glass deployment: {start}."
        assert notified_of(world.reviewer).count(MessageType.BREAK_GLASS_NEEDED) == 2
        assert notified_of(world.admin).count(MessageType.BREAK_GLASS_NEEDED) == 0


def test_last_call_is_not_sent_for_decided_expired_or_regular_approvals_or_in_deleted_environments(
    world: World, bundle: ConfigBundle
) -> None:
    approval = break_glass(world, bundle, lasts=60 * MINUTES, left=10 * MINUTES)
    MessageEvent.objects.all().delete()
    for columns in ({"status": "approved"}, {"status": "pending", "break_glass": False}):
        Approval.objects.filter(pk=approval.pk).update(**columns)
        approvals.record_last_calls()
    Approval.objects.filter(pk=approval.pk).update(break_glass=True)
    approvals.record_last_calls(timezone.now() + 11 * MINUTES)
    organizations.delete(world.prod, kind="environment", actor=world.admin.actor)
    approvals.record_last_calls()

    assert keys(MessageType.BREAK_GLASS_NEEDED) == 0


# -- all of these sweeps ---------------------------------------------------------------------------------------------


def fill(world: World, count: int) -> None:
    """Create ``count`` of each: failing webhooks, failing chat webhooks, and each kind of expiring credential.

    Also use up the quota of agents.
    """
    for number in range(count):
        make_key(world, f"key-{timezone.now().timestamp()}-{number}", left=DAY)
        make_webhook(world, timedelta(hours=2))
        make_chat(world, timedelta(hours=2))
        token, _ = tokens.create_user_token(user=world.viewer.user, name="token", actor=world.viewer.actor)
        expire(token, left=DAY)
        other, _ = enrollment.create_enrollment_token(environment=world.dev, actor=world.admin.actor)
        expire(other, left=DAY)
    enroll(world, 1)
    quotas.set_quotas(world.organization, {Quota.AGENTS: 1}, actor=world.admin.actor)


SWEEPS: list[Callable[[], None]] = [
    credentials.record_expiring, organization.record_failing_webhooks, organization.record_used_quotas,
    approvals.record_last_calls,
]  # fmt: skip


def test_number_of_queries_does_not_depend_on_number_of_events(world: World, other: World) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            for each in SWEEPS:
                each()
        return len(queries)

    fill(world, 1)
    few = count()
    fill(other, 5)
    assert count() == few


def test_concurrent_sweeps_record_each_event_once(concurrently: Race, world: World) -> None:
    claim_all()
    UserToken.objects.update(expires_at=timezone.now() + 300 * DAY)
    fill(world, 2)
    MessageEvent.objects.all().delete()

    def run() -> None:
        for each in SWEEPS:
            each()

    assert concurrently(run, run, run) == [None] * 3

    assert [keys(each) for each in (MessageType.KEY_EXPIRES, MessageType.WEBHOOK_FAILING, MessageType.QUOTA_NEAR)] == [
        6, 4, 1,
    ]  # fmt: skip


def test_sweep_job_records_due_events_and_records_nothing_when_run_again(world: World, bundle: ConfigBundle) -> None:
    fill(world, 1)
    break_glass(world, bundle, lasts=60 * MINUTES, left=10 * MINUTES)

    sweep()
    recorded = list(MessageEvent.objects.order_by("pk").values_list("pk", "type"))
    sweep()

    assert {type for _, type in recorded} >= {
        MessageType.KEY_EXPIRES, MessageType.WEBHOOK_FAILING, MessageType.QUOTA_NEAR,
    }  # fmt: skip
    assert MessageEvent.objects.filter(type=MessageType.BREAK_GLASS_NEEDED, data__is_last_call=True).exists()
    assert list(MessageEvent.objects.order_by("pk").values_list("pk", "type")) == recorded
