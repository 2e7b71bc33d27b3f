"""The organization page shows usage as bars, and installation operators set quotas there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.tenancy.models import AuditEvent, Quota, UseCount
from apps.tenancy.services import quotas
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in, superuser
from tests.browser.test_people import sent
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_installation_operators_set_quotas_and_members_see_usage(world: World) -> None:
    organization, root = world.organization, superuser()
    world.agent()
    url = act(organization, "set_quotas")
    operator, member = signed_in(root), signed_in(world.viewer.user)

    refused = sent(operator, organization, "set_quotas", {"agents": "-1", "drafts": "3"})
    assert "greater than or equal to 0" in refused.text
    assert quotas.check(organization.pk, {Quota.DRAFTS: 9}) is False
    assert sent(operator, organization, "set_quotas", {"agents": "1", "stored_bytes": "1000000"}).status_code == 302

    page = member.get(row_page(organization)).text
    assert "1 of 1" in page
    assert "0 bytes of 976.6 KB".replace(" ", "\xa0") in page.replace(" ", "\xa0")
    assert "0, no quota" in page
    assert "width:100%" in page
    assert url not in page
    assert url in operator.get(row_page(organization)).text
    # The form contains all quotas. An empty field removes the quota.
    assert 'value="1000000"' in operator.get(url).text
    assert sent(operator, organization, "set_quotas", {"agents": "2", "stored_bytes": ""}).status_code == 302
    changes = AuditEvent.objects.filter(action="organization.set_quotas").latest("id").changes
    assert changes == {"agents": [1, 2], "stored_bytes": [1_000_000, None]}
    for person in (world.admin.user, world.viewer.user):
        assert sent(signed_in(person), organization, "set_quotas", {"agents": "9"}).status_code == 403


def test_quotas_can_be_set_in_browser(world: World, page: Page, shot: Callable[..., None]) -> None:
    def hold(kind: str, count: int) -> None:
        UseCount.objects.create(environment=world.dev, kind=kind, count=count)

    def do(kind: str, month: str, count: int) -> None:
        UseCount.objects.create(organization=world.organization, kind=kind, since=f"{month}-01", count=count)

    hold("agents", 4_310)
    hold("stored_bytes", 41_000_000_000)
    hold("drafts", 61)
    months: dict[str, Any] = {"2026-10": 3, "2026-11": 1}
    for month, factor in months.items():
        do("heartbeats", month, 120_000_000 * factor)
        do("uploaded_bytes", month, 9_000_000_000 * factor)
        do("replays", month, 300 * factor)
        do("work", month, 7_000_000_000 * factor)
    sign_in(page, superuser())

    page.goto(row_page(world.organization))
    page.get_by_role("link", name="Set quotas").click()
    page.get_by_role("spinbutton", name="Agents").fill("5000")
    page.get_by_role("spinbutton", name="Stored bytes").fill("40000000000")
    page.get_by_role("spinbutton", name="Drafts").fill("500")
    shot(page, "quotas-form", widths=(1440, 390), full_page=True)
    page.get_by_role("button", name="Set quotas").click()

    expect(page.get_by_text("Quotas of organization acme changed.")).to_be_visible()
    expect(page.get_by_role("img", name="Agents: 86 %")).to_be_visible()
    shot(page, "usage", widths=(1440, 390), full_page=True)
