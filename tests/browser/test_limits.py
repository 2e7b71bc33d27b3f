"""The console's rate limit in a browser: the page of a refused request, live updates and the search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from apps.tenancy.api import limits
from apps.tenancy.credentials import Family
from tests.browser.conftest import TIMEOUT_MS, sign_in
from tests.browser.filled import row_page
from tests.releases.stories import fleet, offered
from tests.worlds import World


@pytest.fixture
def page(chromium: Browser, live_server: Any) -> Iterator[Page]:
    """Open a browser page in which failed requests do not fail the test."""
    context = chromium.new_context(base_url=live_server.url, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    yield page
    context.close()


def test_person_over_rate_limit_sees_when_to_retry(
    world: World, page: Page, monkeypatch: pytest.MonkeyPatch, shot: Callable[..., None]
) -> None:
    fleet(world, 1)
    deployment = offered(world, world.bundle())
    sign_in(page, world.viewer.user)
    page.clock.install()
    page.goto(row_page(deployment))
    updates: list[int] = []
    page.on("response", lambda response: updates.append(response.status) if "/live/" in response.url else None)

    monkeypatch.setitem(limits.PER_MINUTE, Family.USER, 0)
    page.clock.run_for(2100)
    notice = page.locator("[data-trouble]")
    expect(notice).to_contain_text("You have sent too many requests to the console. Updates continue in ")
    page.clock.run_for(2100)
    assert updates == [429]  # the page requests no update before the seconds in Retry-After are over
    page.keyboard.press("Control+k")
    expect(page.locator(".search-note")).to_contain_text("Too many requests. Search again in ")
    page.goto(row_page(deployment))
    expect(page.get_by_role("heading", name="Too many requests")).to_be_visible()
    expect(page.get_by_text("You can continue in")).to_be_visible()
    shot(page, "too-many-requests", widths=(1440, 390))

    monkeypatch.setitem(limits.PER_MINUTE, Family.USER, 1200)
    page.get_by_role("link", name="Try again").click()
    expect(page.locator(".live")).to_be_visible()
    assert page.url.endswith(row_page(deployment))


def test_live_updates_continue_when_rate_limit_permits_them_again(
    world: World, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet(world, 1)
    deployment = offered(world, world.bundle())
    sign_in(page, world.viewer.user)
    page.clock.install()
    page.goto(row_page(deployment))
    notice = page.locator("[data-trouble]")
    monkeypatch.setitem(limits.PER_MINUTE, Family.USER, 0)
    page.clock.run_for(2100)
    expect(notice).to_be_visible()

    monkeypatch.setitem(limits.PER_MINUTE, Family.USER, 1200)
    page.clock.run_for(91_000)

    expect(notice).to_be_hidden()
