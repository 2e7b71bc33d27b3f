"""Fixtures that run Chromium against a live server. Any error in a page from ``open_page`` fails the test."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from tests.patience import PATIENCE_S

TIMEOUT_MS = PATIENCE_S * 1000
# chromium-headless-shell is Chromium without windows. It needs less processor time for the same pages.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None)
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.hookimpl(tryfirst=True)  # before pytest selects tests by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use Chromium, which ``make test-browser`` runs and ``make test`` leaves out."""
    for item in items:
        if isinstance(item, pytest.Function) and "chromium" in item.fixturenames:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start one browser for the session. Without Chromium on PATH, skip the browser tests."""
    if CHROMIUM is None:
        pytest.skip("NO CHROMIUM ON PATH: the browser tests did not run (apt-get install chromium-headless-shell)")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright runs an event loop in this thread, in which Django refuses database access by default.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        expect.set_options(timeout=TIMEOUT_MS)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


def _listen(page: Page, errors: list[str]) -> None:
    def console(message: ConsoleMessage) -> None:
        if message.type == "error":  # includes requests blocked by the content security policy
            errors.append(message.text)

    def responded(response: Response) -> None:
        if response.status >= 500:
            errors.append(f"{response.url}: {response.status}")

    def failed(request: Request) -> None:
        # Leaving a page aborts its unfinished requests. Requests blocked by the policy fail with another error.
        if request.failure != "net::ERR_ABORTED":
            errors.append(f"{request.url}: {request.failure}")

    page.on("console", console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", failed)
    page.on("response", responded)


@pytest.fixture
def open_page(chromium: Browser, live_server: Any) -> Iterator[Callable[..., Page]]:
    """Yield a function that opens pages. Fail at the end of the test if a page had an error or a blocked request."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def new(**options: Any) -> Page:
        context = chromium.new_context(base_url=live_server.url, viewport={"width": 1440, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        _listen(page, errors)
        return page

    yield new
    for context in contexts:
        context.close()
    assert not errors, "\n".join(errors)


@pytest.fixture
def shot() -> Callable[..., None]:
    """Return a function that saves screenshots in both themes and all given widths, if BYTEOR_TEST_SHOTS is set."""
    asked = os.environ.get("BYTEOR_TEST_SHOTS")

    def take(page: Page, name: str, *, widths: tuple[int, ...] = (1440,), full_page: bool = False) -> None:
        if asked is None:
            return
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            for theme in ("light", "dark"):
                page.evaluate("dark => document.documentElement.classList.toggle('dark', dark)", theme == "dark")
                page.wait_for_timeout(100)
                page.screenshot(path=Path(asked, f"{name}-{theme}-{width}.png"), full_page=full_page)
        page.evaluate("document.documentElement.classList.remove('dark')")
        page.set_viewport_size({"width": 1440, "height": 900})

    return take


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """Open a browser page in which nobody is signed in."""
    return open_page()


def sign_in(page: Page, user: Any) -> Page:
    """Sign a person in with a new one-time link, without opening a page. Tests of whole stories open the link instead.

    ``page`` itself opens nothing, because the next step of the test usually opens a page other than the overview.
    """
    from apps.tenancy.actors import system_actor
    from apps.tenancy.services import accounts

    path = f"/auth/link/{accounts.create_sign_in_link(user=user, actor=system_actor('test'))}"
    [token] = re.findall('name="csrfmiddlewaretoken" value="([^"]+)"', page.request.get(path).text())
    response = page.request.post(path, form={"csrfmiddlewaretoken": token}, max_redirects=0)
    assert (response.status, response.headers["location"]) == (302, "/admin/")
    return page


def open_overview(page: Page, user: Any) -> Page:
    """Sign a person in, and open the overview."""
    sign_in(page, user).goto("/admin/")
    return page
