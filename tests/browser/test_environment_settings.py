"""The environment settings in the console, which are edited with the same rules as in the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.tenancy.models import AuditEvent, Environment
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in
from tests.browser.test_people import sent
from tests.releases.test_requests import NOW
from tests.worlds import World

pytestmark = pytest.mark.django_db


def filled_in(environment: Environment, **changes: Any) -> dict[str, Any]:
    """Return the form values that a browser sends for the settings, with the given changes."""
    values = {**environment.settings_with_defaults, **changes}
    windows = values.pop("freeze_windows")
    texts = {name: "" if value is None else str(value) for name, value in values.items() if value is not False}
    return {**texts, "reviewers": values["reviewers"], **filled_windows(windows)}


def filled_windows(windows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the form values that a browser sends for the freeze windows, with the blank row at the end."""
    columns = {"start": "", "end": "", "time_zone": "UTC", "recurrence": "", "reason": ""}
    return {
        f"freeze_windows.{name}": [*(window.get(name) or initial for window in windows), initial]
        for name, initial in columns.items()
    }


def stored(environment: Environment) -> dict[str, Any]:
    environment.refresh_from_db()
    return dict(environment.settings)


def test_settings_form_stores_only_changed_settings(world: World) -> None:
    client = signed_in(world.project_admin.user)

    answer = sent(client, world.dev, "settings", filled_in(world.dev, agent_timeout_s=60, freeze_windows=[NOW]))

    assert answer["Location"] == row_page(world.dev)
    assert stored(world.dev) == {"agent_timeout_s": 60, "freeze_windows": world.dev.settings["freeze_windows"]}
    assert world.dev.settings["freeze_windows"][0]["reason"] == NOW["reason"]
    event = AuditEvent.objects.get(action="environment.update")
    assert event.actor_display == world.project_admin.user.email
    page = client.get(row_page(world.dev)).text
    assert "no deployment starts until" in page
    assert NOW["reason"] in page


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"agent_timeout_s": 1}, "agent_timeout_s"),
        ({"agent_timeout_s": "x"}, "agent_timeout_s"),
        ({"replay_policy": "always"}, "replay_policy"),
        ({"freeze_windows": [{"reason": "no times"}]}, "freeze_windows"),
        ({"freeze_windows": [NOW | {"time_zone": "Mars"}]}, "freeze_windows"),
        ({"freeze_windows": [NOW | {"recurrence": "yearly"}]}, "freeze_windows"),
    ],
)
def test_error_of_invalid_setting_is_shown_at_its_field(world: World, changes: dict[str, Any], field: str) -> None:
    page = sent(signed_in(world.admin.user), world.dev, "settings", filled_in(world.dev, **changes))

    assert page.context["form"].errors[field]
    assert stored(world.dev) == {}


KEPT: list[dict[str, Any]] = [
    {"start": "2026-12-24T18:00:00", "end": "2026-12-27T06:00", "time_zone": "Europe/Berlin", "reason": "Holidays"},
    {"start": "2026-12-24T18:00:00.5+01:00", "end": "2026-12-27T06:00:00Z", "time_zone": "UTC", "recurrence": None,
     "reason": "Times with an offset"},
]  # fmt: skip


def test_freeze_windows_are_added_and_removed_as_rows_and_others_stay_unchanged(world: World) -> None:
    client = signed_in(world.project_admin.user)
    world.dev.settings = {"freeze_windows": KEPT}
    world.dev.save()
    sent_by_browser = [KEPT[0] | {"start": "2026-12-24T18:00"}, KEPT[1]]
    weekly = {"start": "2027-01-01T16:00", "end": "2027-01-03T23:00", "time_zone": "Asia/Tokyo",
              "recurrence": "weekly", "reason": "Weekends"}  # fmt: skip

    page = client.get(act(world.dev, "settings")).text
    sent(client, world.dev, "settings", filled_in(world.dev, freeze_windows=sent_by_browser))
    assert stored(world.dev) == {"freeze_windows": KEPT}
    assert not AuditEvent.objects.filter(action="environment.update").exists()
    sent(client, world.dev, "settings", filled_in(world.dev, freeze_windows=[*sent_by_browser, weekly]))
    assert stored(world.dev) == {"freeze_windows": [*KEPT, weekly]}
    sent(client, world.dev, "settings", filled_in(world.dev, freeze_windows=[weekly]))
    assert stored(world.dev) == {"freeze_windows": [weekly]}
    sent(client, world.dev, "settings", filled_in(world.dev, freeze_windows=[]))

    assert stored(world.dev) == {"freeze_windows": []}
    assert page.count('type="datetime-local"') == 4  # the first window and the blank row
    assert 'value="2026-12-24T18:00:00.5+01:00"' in page
    assert '<option value="Europe/Berlin">' in page


def test_error_of_freeze_window_names_its_row_and_input(world: World) -> None:
    late = {"start": "2026-12-27T06:00", "end": "2026-12-24T18:00", "time_zone": "UTC", "reason": "Holidays"}

    page = sent(
        signed_in(world.admin.user), world.dev, "settings", filled_in(world.dev, freeze_windows=[{}, NOW, late])
    )

    assert page.context["form"].errors["freeze_windows"] == ["Freeze window 2, end: Must be after start."]
    assert page.text.count('aria-invalid="true"') == 1
    assert stored(world.dev) == {}


def test_organization_admin_but_not_project_admin_can_disable_required_approvals(world: World) -> None:
    loose = filled_in(world.prod, approvals_required=False)

    refused = sent(signed_in(world.project_admin.user), world.prod, "settings", loose)
    assert "approvals_required" in refused.text
    assert stored(world.prod) == {}
    sent(signed_in(world.admin.user), world.prod, "settings", loose)

    assert stored(world.prod) == {"approvals_required": False}


def test_editing_settings_requires_environment_management(world: World, other: World) -> None:
    form = filled_in(world.dev, agent_timeout_s=60)
    for person, status in ((world.viewer, 403), (world.operator, 403), (other.admin, 404)):
        assert sent(signed_in(person.user), world.dev, "settings", form).status_code == status
    assert "Edit settings" not in signed_in(world.operator.user).get(row_page(world.dev)).text
    assert stored(world.dev) == {}
    # Operators see the audit events of their projects, but viewers do not.
    assert "Last events" not in signed_in(world.viewer.user).get(row_page(world.dev)).text
    assert "Last events" in signed_in(world.operator.user).get(row_page(world.dev)).text


def test_settings_can_be_edited_in_browser(world: World, page: Page, shot: Callable[..., None]) -> None:
    world.dev.settings = {"freeze_windows": [NOW]}
    world.dev.save()
    sign_in(page, world.admin.user)

    page.goto(row_page(world.dev))
    shot(page, "environment", widths=(1440, 390), full_page=True)
    page.get_by_role("link", name="Edit settings").click()
    page.get_by_label("Agent timeout, in seconds").fill("90")
    windows = page.get_by_role("group", name="Freeze windows").get_by_role("group")
    page.get_by_role("button", name="Remove freeze window").press("Enter")
    add = page.get_by_role("button", name="Add freeze window")
    expect(add).to_be_focused()
    add.press("Enter")
    expect(windows.get_by_label("Start")).to_be_focused()
    windows.get_by_label("Start").fill("2027-01-01T16:00")
    windows.get_by_label("End").fill("2027-01-03T23:00")
    windows.get_by_label("Time zone").fill("Asia/Tokyo")
    windows.get_by_label("Repeats").select_option("Every week")
    windows.get_by_label("Reason").fill("Weekends")
    shot(page, "environment-settings", widths=(1440, 390), full_page=True)
    page.get_by_role("button", name="Edit settings").click()

    expect(page.get_by_text("Settings of environment dev changed.")).to_be_visible()
    assert stored(world.dev)["agent_timeout_s"] == 90
    assert stored(world.dev)["freeze_windows"] == [
        {"start": "2027-01-01T16:00", "end": "2027-01-03T23:00", "time_zone": "Asia/Tokyo", "recurrence": "weekly",
         "reason": "Weekends"}
    ]  # fmt: skip
