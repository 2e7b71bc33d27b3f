"""``byteor login`` in a terminal, allowed by a person in Chromium."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.tenancy.models import UserToken
from apps.tenancy.services import device_sign_ins
from tests.browser.axe import examine_open, prepare
from tests.browser.conftest import sign_in
from tests.patience import PATIENCE_S
from tests.worlds import World


def test_terminal_is_signed_in_after_person_allows_it(
    world: World,
    page: Page,
    live_server: Any,
    shot: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_sign_ins, "INTERVAL", timedelta(seconds=1))
    command = [sys.executable, "-m", "byteor.command.main", "login", live_server.url, "--no-browser"]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    for name in ("BYTEOR_URL", "BYTEOR_TOKEN", "BYTEOR_CONTEXT"):
        environment.pop(name, None)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as login:
        assert login.stderr is not None
        [address] = re.findall(r"open (\S+)", login.stderr.readline())
        [code] = re.findall("[A-Z]{4}-[A-Z]{4}", login.stderr.readline())

        prepare(sign_in(page, world.operator.user)).goto(address)
        expect(page.get_by_label("Code")).to_have_value(code)
        shot(page, "device-code", widths=(1440, 390))
        wrong = examine_open(page, "the page with the code")
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("heading", name="Allow this machine to sign in as you?")).to_be_visible()
        expect(page.locator("main")).to_contain_text(code)
        shot(page, "device-allow", widths=(1440, 390))
        wrong += examine_open(page, "the page with the machine")
        page.get_by_role("button", name="Allow").click()
        expect(page.get_by_role("status").filter(has_text="You can close this page.")).to_be_visible()
        shot(page, "device-done", widths=(1440, 390))
        out, err = login.communicate(timeout=PATIENCE_S)

    assert login.returncode == 0, err
    assert f"as {world.operator.user.email}" in out
    assert not wrong, "\n".join(wrong)
    [context] = json.loads((tmp_path / "byteor/config.json").read_text())["contexts"].values()
    assert context["organization"] == str(world.organization.pk)
    assert UserToken.objects.filter(user=world.operator.user, name__startswith="byteor on ").count() == 1
