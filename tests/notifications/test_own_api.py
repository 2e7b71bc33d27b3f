"""The API of a person's own notifications and notification settings."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from apps.notifications.models import Notification, NotificationSettings
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import AuditEvent, Membership, MessageEvent
from tests.worlds import Person, World

pytestmark = pytest.mark.django_db
NOTIFICATIONS, SETTINGS = "/api/v1/me/notifications", "/api/v1/me/notification-settings"


def notify(world: World, *people: Person, text: str = "It runs.") -> list[Notification]:
    """Create a notification about the same event for each person."""
    event = MessageEvent.objects.create(
        organization=world.organization, project=world.project, environment=world.prod,
        type=MessageType.ROLLOUT_FINISHED, resource_kind="deployment", resource_id="1", text=text, path="/admin/",
        outcome=EventOutcome.NOTIFIED,
    )  # fmt: skip
    return [Notification.objects.create(user=each.user, event=event) for each in people]


def texts(person: Person, query: str = "") -> list[str]:
    return [each["text"] for each in person.api.get(NOTIFICATIONS + query).json()["results"]]


def unread(row: Notification) -> bool:
    row.refresh_from_db()
    return row.read_at is None


def put(person: Person, chosen: Any, **headers: str) -> Any:
    return person.api.put(SETTINGS, {"settings": chosen}, **headers)


# -- notifications -----------------------------------------------------------------------------------------------------


def test_list_shows_own_notifications_newest_first_and_filters_by_unread_and_event(world: World) -> None:
    for text in ("first", "second"):
        notify(world, world.viewer, world.operator, text=text)
    notify(world, world.operator, text="not for the viewer")
    first = Notification.objects.filter(user=world.viewer.user).earliest("pk")
    world.viewer.api.patch(NOTIFICATIONS, {"read": True, "ids": [str(first.pk)]})

    assert texts(world.viewer) == ["second", "first"]
    assert texts(world.viewer, "?unread=true") == ["second"]
    assert texts(world.viewer, "?unread=false") == ["first"]
    assert texts(world.viewer, "?event=rollout.stopped") == []


def test_notifications_are_hidden_from_person_who_has_left(world: World) -> None:
    notify(world, world.viewer)
    Membership.objects.filter(user=world.viewer.user).delete()

    assert texts(world.viewer) == []


def test_marking_ignores_unknown_ids_and_notifications_of_other_people(world: World) -> None:
    mine, theirs = notify(world, world.viewer, world.operator)
    body = {"read": True, "ids": [str(mine.pk), str(theirs.pk), str(uuid4())]}

    assert world.viewer.api.patch(NOTIFICATIONS, body).json() == {"changed": 1, "unread": 0}
    assert world.viewer.api.patch(NOTIFICATIONS, body).json() == {"changed": 0, "unread": 0}
    assert (unread(mine), unread(theirs)) == (False, True)
    assert world.viewer.api.patch(NOTIFICATIONS, {"read": False}).json() == {"changed": 1, "unread": 1}


@pytest.mark.parametrize(
    "body",
    [{}, {"read": "yes"}, {"read": True, "ids": "all"}, {"read": True, "ids": ["x"]},
     {"read": True, "ids": [str(UUID(int=number)) for number in range(201)]}, {"read": True, "seen": True}],
)  # fmt: skip
def test_invalid_marks_are_refused_and_change_nothing(world: World, body: dict[str, Any]) -> None:
    (row,) = notify(world, world.viewer)

    assert world.viewer.api.patch(NOTIFICATIONS, body).status_code == 400
    assert unread(row)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_update_replaces_or_removes_choices_of_named_events(world: World) -> None:
    prod = str(world.prod.pk)
    put(world.viewer, {"rollout.stopped": {"*": "now", prod: "off"}, "rollout.finished": {"*": "daily"}})

    updated = put(world.viewer, {"rollout.stopped": {"*": "daily"}, "rollout.finished": {}})

    assert (updated.status_code, updated.json()["settings"]) == (200, {"rollout.stopped": {"*": "daily"}})
    assert world.viewer.api.get(SETTINGS).json()["settings"] == {"rollout.stopped": {"*": "daily"}}
    assert world.operator.api.get(SETTINGS).json()["settings"] == {}
    event = AuditEvent.objects.filter(action="notification_settings.update", organization=None).latest("pk")
    assert event.changes == {
        "rollout.stopped": [{"*": "now", prod: "off"}, {"*": "daily"}],
        "rollout.finished": [{"*": "daily"}, None],
    }


def test_unchanged_settings_record_no_audit_event(world: World) -> None:
    put(world.viewer, {"rollout.stopped": {"*": "now"}})
    before = AuditEvent.objects.count()

    assert put(world.viewer, {"rollout.stopped": {"*": "now"}}).status_code == 200
    assert AuditEvent.objects.count() == before


def test_if_match_prevents_overwriting_settings_that_have_changed(world: World) -> None:
    first = world.viewer.api.get(SETTINGS)["ETag"]
    second = put(world.viewer, {"rollout.stopped": {"*": "now"}}, If_Match=first)["ETag"]

    late = put(world.viewer, {"rollout.stopped": {"*": "off"}}, If_Match=first)

    assert late.status_code == 412
    assert world.viewer.api.get(SETTINGS).json()["settings"] == {"rollout.stopped": {"*": "now"}}
    assert world.viewer.api.get(SETTINGS)["ETag"] == second
    assert world.viewer.api.get(SETTINGS, If_None_Match=second).status_code == 304


@pytest.mark.parametrize(
    ("chosen", "pointer"),
    [
        (None, "/settings"),
        ([], "/settings"),
        ({"rollout.paused": {"*": "now"}}, "/settings/rollout.paused"),
        ({"member.invited": {"*": "off"}}, "/settings/member.invited"),
        ({"rollout.stopped": "now"}, "/settings/rollout.stopped"),
        ({"rollout.stopped": {"*": "weekly"}}, "/settings/rollout.stopped/*"),
        ({"rollout.stopped": {"*": ["now"]}}, "/settings/rollout.stopped/*"),
        ({"rollout.stopped": {"prod": "now"}}, "/settings/rollout.stopped/prod"),
        ({"rollout.stopped": {str(UUID(int=number)): "now" for number in range(201)}}, "/settings/rollout.stopped"),
    ],
)
def test_invalid_settings_are_refused_and_change_nothing(world: World, chosen: Any, pointer: str) -> None:
    refused = put(world.viewer, chosen)

    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, pointer)
    assert not NotificationSettings.objects.exists()


def test_environment_of_other_tenant_is_refused_like_unknown_environment(world: World, other: World) -> None:
    for environment_id in (other.prod.pk, uuid4()):
        refused = put(world.viewer, {"rollout.stopped": {str(environment_id): "now"}})
        (error,) = refused.json()["errors"]
        assert (refused.status_code, error["code"]) == (400, "does_not_exist")
        assert error["pointer"] == f"/settings/rollout.stopped/{environment_id}"
    assert world.viewer.api.get(SETTINGS).json()["settings"] == {}
