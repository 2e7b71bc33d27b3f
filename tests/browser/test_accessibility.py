"""Accessibility of the console's pages: checks with axe-core, and keyboard use of the menu and filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from apps.console.frame import ReadOnlyAdmin, site
from apps.console.frame.menu import RECORDS
from apps.tenancy.models import Membership
from apps.tenancy.permissions import Role
from tests.browser.axe import examine, examine_open, prepare
from tests.browser.conftest import TIMEOUT_MS, sign_in
from tests.browser.every_page import more
from tests.browser.filled import MODELS, act, fill, row_page, superuser, table
from tests.browser.test_tables import newest
from tests.worlds import World

APPS = [("tenancy", "procrastinate"), ("pipelines", "fleet", "notifications"), ("releases", "artifacts")]


def pages(apps: Sequence[str]) -> Iterator[str]:
    """Yield the paths of the lists of these apps, and for each list the paths of a row page and of additional pages.

    If the table has acts with their own forms, also yield the path of one form. To save time, yield only one of the
    apps' tables behind the menu entry "Records", because the pages of these tables differ only in their texts.
    """
    models = [model for label, model in MODELS.items() if label.partition(".")[0] in apps]
    is_record = {model: site._registry[model].section == RECORDS for model in models}
    for model in [*(each for each in models if not is_record[each]), *[each for each in models if is_record[each]][:1]]:
        row, acts = newest(model), site._registry[model].acts
        yield table(model)
        yield row_page(row)
        yield from (url for _, url in more(row))
        for each in [each for each in acts if each.form is not None][:1]:
            yield act(row, each.name)


@pytest.mark.parametrize("apps", APPS)
def test_lists_row_pages_and_forms_are_accessible(
    world: World, page: Page, apps: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReadOnlyAdmin, "list_per_page", 10)  # few rows are enough, because all look alike
    fill(world)
    person = superuser()
    # Without a role, not even an installation operator may decide on an approval.
    Membership.objects.create(user=person, organization=world.organization, role=Role.ORG_ADMIN)
    prepare(sign_in(page, person))

    wrong = [each for path in pages(apps) for each in examine(page, path)]

    assert not wrong, "\n".join(wrong)


def test_public_pages_overview_search_and_refusals_are_accessible(
    world: World, chromium: Browser, live_server: Any
) -> None:
    context = chromium.new_context(
        base_url=live_server.url
    )  # some of these pages are refusals, which the browser logs as errors
    page = prepare(context.new_page())
    page.set_default_timeout(TIMEOUT_MS)
    paths = ["/", "/admin/login/", "/nowhere"]
    wrong = [each for path in paths for each in examine(page, path)]
    sign_in(page, world.viewer.user)
    wrong += examine(page, "/admin/", left_out="#nothing")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.keyboard.press("ControlOrMeta+k")
    page.keyboard.type("acme")
    expect(page.get_by_role("option").first).to_be_visible()
    wrong += examine_open(page, "the search")
    for path in ("/admin/records/", "/admin/start/", "/admin/nowhere/", act(world.prod, "delete")):
        wrong += examine(page, path)
    context.close()

    assert not wrong, "\n".join(wrong)


def test_menu_and_filters_open_and_close_by_keyboard_in_narrow_window(
    world: World, open_page: Callable[..., Page]
) -> None:
    page = sign_in(open_page(), world.viewer.user)
    page.set_viewport_size({"width": 390, "height": 844})
    button = page.get_by_role("button", name="menu").first
    focused = page.locator("#nav-sidebar :focus")

    page.goto("/admin/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()

    button.press("Enter")
    expect(focused).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#nav-sidebar")).not_to_be_visible()
    expect(button).to_be_focused()

    button.press("Enter")
    expect(focused).to_have_count(1)
    page.get_by_role("link", name="Agents").press("Enter")
    page.wait_for_url("**/admin/fleet/agent/**")
    page.get_by_role("button", name="Filters").press("Enter")
    expect(page.get_by_role("dialog", name="Filters").locator(":focus")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Filters")).to_be_focused()
