"""A release and a rollback with ``byteor`` commands alone. People allow the sign-ins in a real browser."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import TIMEOUT_MS
from tests.system.conftest import Installation
from tests.terminal_story import Story


@pytest.fixture
def served() -> Iterator[Installation]:
    """Start an installation, and remove it after the test."""
    made = Installation()
    made.serve()
    yield made
    made.remove()


def test_two_people_release_and_roll_back_with_commands(
    served: Installation, chromium: Browser, tmp_path: Path
) -> None:
    def person(link: str) -> Callable[[str], None]:
        """Sign a person in, and return a function that allows a device to sign in as this person."""
        page: Page = chromium.new_context(base_url=served.base).new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(link)
        page.get_by_role("button", name="Sign in").click()

        def allow(address: str) -> None:
            page.goto(address)
            page.get_by_role("button", name="Continue").click()
            page.get_by_role("button", name="Allow").click()
            page.get_by_text("You can close this page").wait_for()

        return allow

    def invite(email: str) -> Callable[[str], None]:
        made = served.manage("sign_in_link", "--email", email, "--json")
        return person(json.loads(made.stdout)["login_url"])

    ada = person(served.bootstrap()["login_url"])
    Story(Path(sys.executable).with_name("byteor"), tmp_path, served.base).tell(allow=ada, invite=invite)
