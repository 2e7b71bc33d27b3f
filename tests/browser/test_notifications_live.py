"""The bell, the number of waiting approvals, and the pages of notifications in a browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from playwright.sync_api import Locator, Page, expect

from apps.console.frame.bell import MOST
from apps.notifications.models import Notification
from apps.notifications.services import choices
from apps.releases.services import approvals
from tests.browser.axe import examine, examine_open, prepare
from tests.browser.conftest import sign_in
from tests.browser.filled import table
from tests.browser.notified import notify
from tests.browser.waiting import approval_of, waiting
from tests.worlds import World

PAGE = "/admin/notifications/"
SETTINGS = f"{PAGE}settings/"
LONG = (
    "somebody.with.a.long.name@acme.example asks you to approve wave 2 of 4 of the deployment of quotes v12 to 1,250 "
    "agents in prod, which waits because 3 agents of the first wave failed."
)


def bell(page: Page) -> Locator:
    """Return the link that opens the notifications."""
    return page.get_by_role("link", name="Notifications").first


def badge(page: Page) -> Locator:
    """Return the number next to the menu entry "Approvals"."""
    return page.locator("#nav-sidebar [data-count=approvals]")


def test_bell_and_badge_update_without_reload(world: World, page: Page) -> None:
    sign_in(page, world.reviewer.user)
    page.clock.install()
    page.goto("/admin/fleet/agent/")
    page.evaluate("window.isSamePage = true")
    expect(bell(page)).to_have_accessible_name("Notifications")
    expect(badge(page)).to_be_hidden()

    first, second = waiting(world, 2)
    row = notify(world.reviewer, world.prod)
    page.clock.run_for(15_000)
    expect(bell(page)).to_have_accessible_name("Notifications 1 unread")
    expect(page.get_by_role("link", name="Approvals 2 waiting for you")).to_be_visible()

    approvals.decide(approval_of(first), decision="deny", user=world.admin.user, actor=world.admin.actor, comment="no")
    Notification.objects.filter(pk=row.pk).delete()
    page.clock.run_for(15_000)
    expect(badge(page)).to_contain_text("1")
    expect(bell(page)).to_have_accessible_name("Notifications")
    approvals.decide(approval_of(second), decision="deny", user=world.admin.user, actor=world.admin.actor, comment="no")
    for _ in range(MOST + 1):
        notify(world.reviewer, world.prod)
    page.clock.run_for(15_000)
    expect(badge(page)).to_be_hidden()
    expect(bell(page)).to_have_accessible_name("Notifications 99+ unread")
    assert page.evaluate("window.isSamePage")


def test_hidden_tab_sends_no_requests_until_it_is_visible(world: World, page: Page) -> None:
    sign_in(page, world.viewer.user)
    page.clock.install()
    page.goto("/admin/fleet/agent/")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))

    def turn(*, hidden: bool) -> None:
        page.evaluate(
            "hidden => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            hidden,
        )

    turn(hidden=True)
    page.clock.run_for(120_000)
    assert requests == []
    notify(world.viewer, world.dev)
    turn(hidden=False)
    expect(bell(page)).to_have_accessible_name("Notifications 1 unread")
    assert len(requests) == 1
    page.clock.run_for(15_000)
    bell(page).hover()  # a round trip to the browser, after which the page's request is in ``requests``
    assert len(requests) == 2


def test_following_link_marks_only_its_notification_as_read(world: World, page: Page) -> None:
    notify(world.viewer, world.dev, "Look at dev.")
    notify(world.viewer, world.prod, "Look at prod.")
    sign_in(page, world.viewer.user).goto("/admin/")

    bell(page).click()
    expect(page.get_by_role("listitem").filter(has_text="Unread: Look at dev.")).to_be_visible()
    page.get_by_role("link", name="Look at dev.").press("Enter")
    page.wait_for_url(f"**{table(type(world.dev))}{world.dev.pk}/change/")
    expect(bell(page)).to_have_accessible_name("Notifications 1 unread")

    bell(page).click()
    expect(page.get_by_role("listitem").filter(has_text="Unread: ")).to_have_count(1)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Look at prod.").click(modifiers=["ControlOrMeta"])
    opened.value.wait_for_url(f"**{table(type(world.prod))}{world.prod.pk}/change/")
    expect(bell(opened.value)).to_have_accessible_name("Notifications")
    expect(page.get_by_role("listitem").filter(has_text="Unread: ")).to_have_count(0)
    assert page.url.endswith(PAGE)


def test_all_notifications_can_be_marked_as_read_by_keyboard(world: World, page: Page) -> None:
    for _ in range(3):
        notify(world.viewer, world.dev)
    sign_in(page, world.viewer.user).goto(PAGE)

    page.get_by_role("button", name="Mark all as read").press("Enter")

    expect(page.get_by_role("button", name="Mark all as read")).to_have_count(0)
    expect(bell(page)).to_have_accessible_name("Notifications")
    assert not Notification.objects.filter(read_at=None).exists()


def test_settings_are_saved_by_keyboard_in_narrow_window(world: World, page: Page) -> None:
    sign_in(page, world.viewer.user)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(SETTINGS)

    page.get_by_label("A rollout finished. All environments").press("d")
    page.get_by_label("Add an environment").press("a")
    page.get_by_role("button", name="Add").press("Enter")
    added = page.get_by_label("An approval is waiting for your decision. acme / trading / dev")
    expect(added).to_be_focused()
    expect(page.get_by_label("A rollout finished. All environments")).to_have_value("daily")
    page.keyboard.press("o")
    page.get_by_role("button", name="Save").press("Enter")

    expect(page.get_by_text("Notification settings saved.")).to_be_visible()
    expect(added).to_have_value("off")
    assert choices.read_settings(world.viewer.user).choices == {
        "rollout.finished": {"*": "daily"},
        "approval.needed": {str(world.dev.pk): "off"},
    }


def test_account_menu_and_notifications_link_to_settings(world: World, page: Page) -> None:
    sign_in(page, world.viewer.user).goto("/admin/")
    page.get_by_role("button", name="Account").click()
    page.get_by_role("link", name="Notification settings").click()
    expect(page.get_by_role("heading", name="Notification settings")).to_be_visible()

    bell(page).click()
    page.get_by_role("link", name="Settings", exact=True).click()
    page.wait_for_url(f"**{SETTINGS}")


def test_notification_pages_are_accessible(world: World, page: Page, shot: Callable[..., None], settings: Any) -> None:
    settings.CONFIG = replace(settings.CONFIG, smtp_url=None)
    prepare(sign_in(page, world.reviewer.user))
    wrong = [*examine(page, PAGE)]
    shot(page, "notifications-none", widths=(1440, 390))
    wrong += examine(page, SETTINGS)
    shot(page, "settings-no-mail", widths=(1440, 390), full_page=True)

    waiting(world, 3)
    for number in range(40):
        notify(world.reviewer, world.dev, f"The rollout of quotes v{number} to dev finished.")
    Notification.objects.filter(event__text__contains="v2").update(read_at="2026-01-01T00:00Z")
    notify(world.reviewer, world.prod, LONG)
    choices.save_settings(
        world.reviewer.user, {"agents.failed": {str(world.dev.pk): "off", str(world.prod.pk): "now"}},
        actor=world.reviewer.actor,
    )  # fmt: skip
    settings.CONFIG = replace(settings.CONFIG, smtp_url="smtp://mail.acme.example")
    wrong += examine(page, PAGE, left_out="#nothing")
    shot(page, "notifications-many", widths=(1440, 390))
    wrong += examine(page, SETTINGS)
    shot(page, "settings", widths=(1440, 390), full_page=True)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/admin/")
    page.get_by_role("button", name="Show or hide the menu").click()
    wrong += examine_open(page, "the menu with a number", left_out="#nothing")
    shot(page, "menu", widths=(390,))

    assert not wrong, "\n".join(wrong)
