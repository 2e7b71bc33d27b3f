"""The page of a person's notification settings, and the act that edits an organization's defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from apps.notifications.models import NotificationSettings
from apps.notifications.services import choices
from apps.tenancy.message_types import DESCRIPTIONS
from apps.tenancy.models import AuditEvent, Environment, Organization
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import members, organizations
from tests.browser.filled import act, signed_in
from tests.browser.test_people import sent
from tests.worlds import World

pytestmark = pytest.mark.django_db
PAGE = "/admin/notifications/settings/"


def choose(world: World, chosen: dict[str, dict[str, str]]) -> NotificationSettings:
    """Store choices of the viewer."""
    return choices.save_settings(world.viewer.user, chosen, actor=world.viewer.actor)


def stored(world: World) -> Any:
    """Return the viewer's choices."""
    return choices.read_settings(world.viewer.user).choices


def fields(page: Any) -> set[tuple[str, str]]:
    """Return the event and the column of each choice on the page."""
    return {(name.partition(":")[0], name.partition(":")[2]) for name in page.context["form"].fields}


def defaults(page: Any) -> dict[str, str]:
    """Return the default of each event by its text."""
    return {row["text"]: row["default"] for row in page.context["rows"]}


def test_page_has_one_choice_for_each_event_and_shows_defaults(world: World) -> None:
    page = signed_in(world.viewer.user).get(PAGE)

    assert len(DESCRIPTIONS) == 15
    assert fields(page) == {(event, "*") for event in DESCRIPTIONS}
    found = defaults(page)
    assert found["An approval is waiting for your decision."] == "Immediately"
    assert found["A rollout finished."] == "Off"
    assert found["A deployment was rolled back."] == "Off, but immediately for the requester"
    assert all(text in page.text for text in found)


def test_defaults_of_organizations_are_shown(world: World, other: World) -> None:
    setting = {"settings": {"default_notification_settings": {"rollout.finished": "daily"}}}
    organizations.update_organization(world.organization, setting, actor=world.admin.actor)
    viewer = signed_in(world.viewer.user)
    assert defaults(viewer.get(PAGE))["A rollout finished."] == "Daily"

    members.add(
        organization=other.organization, project=None, email=world.viewer.user.email, role=Role.VIEWER,
        granter=GRANTS[Role.ORG_ADMIN], actor=other.admin.actor,
    )  # fmt: skip

    assert defaults(viewer.get(PAGE))["A rollout finished."] == "Differs between your organizations"
    assert defaults(viewer.get(PAGE))["Agents failed."] == "Off"


def test_saved_choices_replace_earlier_ones(world: World) -> None:
    choose(world, {"rollout.finished": {"*": "now", str(world.prod.pk): "off"}, "agents.failed": {"*": "daily"}})
    viewer = signed_in(world.viewer.user)
    page = viewer.get(PAGE)
    assert [column.title for column in page.context["columns"]] == ["All environments", "acme / trading / prod"]

    values = {
        "revision": page.context["revision"], "environment": str(world.prod.pk), "rollout.finished:*": "daily",
        f"rollout.finished:{world.prod.pk}": "", f"incident.new:{world.prod.pk}": "now",
    }  # fmt: skip
    response = viewer.post(PAGE, values, follow=True)

    assert response.redirect_chain == [(PAGE, 302)]
    assert "Notification settings saved." in response.text
    assert stored(world) == {"rollout.finished": {"*": "daily"}, "incident.new": {str(world.prod.pk): "now"}}
    event = AuditEvent.objects.filter(action="notification_settings.update").latest("id")
    assert event.actor_display == world.viewer.user.email


def test_adding_environment_to_form_saves_nothing_until_form_is_saved(world: World) -> None:
    viewer, key = signed_in(world.viewer.user), str(world.dev.pk)
    revision = viewer.get(PAGE).context["revision"]

    page = viewer.post(PAGE, {"revision": revision, "agents.failed:*": "now", "add": key, "_add": ""})

    assert page.status_code == 200
    assert ("agents.failed", key) in fields(page)
    assert ("quota.near", key) not in fields(page)  # it concerns the whole organization
    assert page.context["form"]["agents.failed:*"].value() == "now"
    assert key not in {str(pk) for pk, _ in page.context["others"]}
    assert stored(world) == {}
    viewer.post(
        PAGE, {"revision": revision, "environment": key, "agents.failed:*": "now", f"agents.failed:{key}": "off"}
    )
    assert stored(world) == {"agents.failed": {"*": "now", key: "off"}}


@pytest.mark.parametrize("foreign", ["of another organization", "unknown", "junk"])
def test_environment_that_person_cannot_see_cannot_be_added(world: World, other: World, foreign: str) -> None:
    key = {"of another organization": str(other.dev.pk), "unknown": str(uuid4()), "junk": "../x"}[foreign]
    viewer = signed_in(world.viewer.user)
    revision = viewer.get(PAGE).context["revision"]

    added = viewer.post(PAGE, {"revision": revision, "add": key, "_add": ""})
    viewer.post(PAGE, {"revision": revision, "environment": key, f"agents.failed:{key}": "off"})

    assert len(added.context["columns"]) == 1
    assert other.organization.name not in added.text
    assert stored(world) == {}


def test_choices_for_environments_not_in_form_are_kept(world: World) -> None:
    dev, prod = str(world.dev.pk), str(world.prod.pk)
    choose(world, {"agents.failed": {dev: "off", prod: "now"}, "quota.near": {prod: "daily"}})
    organizations.delete(world.dev, kind="environment", actor=world.admin.actor)
    viewer = signed_in(world.viewer.user)
    page = viewer.get(PAGE)
    assert dev not in page.text

    values = {"revision": page.context["revision"], "environment": prod, f"agents.failed:{prod}": "daily"}
    assert viewer.post(PAGE, values).status_code == 302

    assert stored(world) == {"agents.failed": {dev: "off", prod: "daily"}, "quota.near": {prod: "daily"}}


def test_settings_changed_meanwhile_are_not_overwritten(world: World) -> None:
    viewer = signed_in(world.viewer.user)
    revision = viewer.get(PAGE).context["revision"]
    choose(world, {"agents.failed": {"*": "off"}})

    for stale in (revision, "", "0", "one"):
        response = viewer.post(PAGE, {"revision": stale, "agents.failed:*": "now"})
        assert "The settings were changed in the meantime." in response.text
    assert stored(world) == {"agents.failed": {"*": "off"}}


def test_invalid_choice_is_refused_and_changes_nothing(world: World) -> None:
    viewer = signed_in(world.viewer.user)
    revision = viewer.get(PAGE).context["revision"]

    response = viewer.post(PAGE, {"revision": revision, "agents.failed:*": "hourly", "agents.offline:*": "now"})

    assert response.status_code == 200
    assert "hourly is not one of the available choices" in response.text
    assert stored(world) == {}


def test_page_says_if_installation_sends_no_mail(world: World, settings: Any) -> None:
    viewer = signed_in(world.viewer.user)
    text = (
        "This installation sends no e-mails, because BYTEOR_CLOUD_SMTP_URL is not set. Notifications still appear in "
        "the console."
    )

    settings.CONFIG = replace(settings.CONFIG, smtp_url=None)
    assert text in viewer.get(PAGE).text
    settings.CONFIG = replace(settings.CONFIG, smtp_url="smtp://mail.acme.example")
    assert text not in viewer.get(PAGE).text


def test_person_sees_and_changes_only_own_settings(world: World) -> None:
    choose(world, {"agents.failed": {"*": "off"}})
    operator = signed_in(world.operator.user)
    page = operator.get(PAGE)
    assert page.context["form"]["agents.failed:*"].value() == ""

    operator.post(PAGE, {"revision": page.context["revision"], "agents.failed:*": "now"})

    assert stored(world) == {"agents.failed": {"*": "off"}}
    assert choices.read_settings(world.operator.user).choices == {"agents.failed": {"*": "now"}}


def test_form_has_at_most_40_environments(world: World) -> None:
    made = [world.environment("dev", f"dev-{number}") for number in range(42)]
    choose(world, {"agents.failed": {str(each.pk): "off" for each in made}})
    viewer = signed_in(world.viewer.user)
    page = viewer.get(PAGE)
    names = [f"{event}:{key}" for event, key in fields(page)]
    assert len(page.context["columns"]) == 41
    assert page.context["others"] == []

    shown = [column.key for column in page.context["columns"][1:]]
    values = {"revision": page.context["revision"], "environment": shown, **dict.fromkeys(names, "now")}
    assert viewer.post(PAGE, values).status_code == 302

    kept = {str(each.pk) for each in made} - set(shown)
    assert stored(world)["agents.failed"] == {**dict.fromkeys(["*", *shown], "now"), **dict.fromkeys(kept, "off")}
    assert Environment.objects.filter(pk__in=kept).count() == 2


# -- an organization's defaults -----------------------------------------------------------------------------------


def test_organization_admin_edits_notification_defaults(world: World) -> None:
    url = act(world.organization, "notification_defaults")
    admin = signed_in(world.admin.user)
    assert "Not set: Off, but immediately for the requester" in admin.get(url).text

    sent(admin, world.organization, "notification_defaults", {"rollout.finished": "daily", "agents.failed": "now"})

    chosen = {"rollout.finished": "daily", "agents.failed": "now"}
    organization = Organization.objects.get(pk=world.organization.pk)
    assert organization.settings["default_notification_settings"] == chosen
    assert admin.get(url).context["form"]["agents.failed"].initial == "now"
    sent(admin, world.organization, "notification_defaults", {"rollout.finished": "daily"})
    organization.refresh_from_db()
    assert organization.settings["default_notification_settings"] == {"rollout.finished": "daily"}


def test_project_admin_cannot_edit_defaults_of_organization(world: World) -> None:
    url = act(world.organization, "notification_defaults")
    person = signed_in(world.project_admin.user)

    statuses = [person.get(url).status_code, person.post(url, {"_confirm": "yes", "agents.failed": "now"}).status_code]

    assert statuses == [403, 403]
    assert Organization.objects.get(pk=world.organization.pk).settings.get("default_notification_settings", {}) == {}
