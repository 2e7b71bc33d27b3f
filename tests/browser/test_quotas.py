"""Usage on the organization page and on the usage page, and quotas, which installation operators set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.console.frame import row_link
from apps.tenancy.models import AuditEvent, Quota, UseCount
from apps.tenancy.services import quotas
from apps.tenancy.services.usage import kept_months
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in, superuser, table
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
    # The form contains the current quotas. An empty field removes the quota.
    assert 'value="1000000"' in operator.get(url).text
    assert sent(operator, organization, "set_quotas", {"agents": "2", "stored_bytes": ""}).status_code == 302
    changes = AuditEvent.objects.filter(action="organization.set_quotas").latest("id").changes
    assert changes == {"agents": [1, 2], "stored_bytes": [1_000_000, None]}
    for person in (world.admin.user, world.viewer.user):
        assert sent(signed_in(person), organization, "set_quotas", {"agents": "9"}).status_code == 403


def test_usage_page_lists_only_visible_organizations(world: World, other: World) -> None:
    months = kept_months()
    for each, count in ((world.organization, 7), (other.organization, 11)):
        for month in months[:2]:
            UseCount.objects.create(organization=each, kind="replays", since=month, count=count)
    quotas.set_quotas(world.organization, {Quota.AGENTS: 10}, actor=world.admin.actor)
    world.agent()
    url, root, member = reverse("admin:usage"), signed_in(superuser()), signed_in(world.viewer.user)

    everything, own = root.get(url), member.get(url)

    assert len(months) == len(everything.context["months"]) == 13
    assert [row["name"] for row in own.context["rows"]] == [row_link(world.organization)]
    assert own.context["rows"][0]["bars"][0]["text"] == "1 of 10"
    assert own.context["totals"] == []
    assert {row["name"] for row in everything.context["rows"]} >= {row_link(world.organization)}
    earlier = f"{months[1]:%Y-%m}"
    replays = everything.context["columns"].index("Replays")
    cells = {row["name"]: row["cells"] for row in root.get(url, {"month": earlier}).context["rows"]}
    assert (cells[row_link(world.organization)][replays], cells[row_link(other.organization)][replays]) == ("7", "11")
    assert [row[1 + replays] for row in everything.context["totals"][:2]] == ["18", "18"]
    assert member.get(url, {"month": "1999-01"}).status_code == 404
    assert f'href="{url}"' in root.get("/admin/").text
    assert f'href="{url}"' not in member.get("/admin/").text
    assert f'href="{url}"' in member.get(row_page(world.organization)).text


def test_quotas_can_be_set_and_audited_in_browser(world: World, page: Page, shot: Callable[..., None]) -> None:
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
    World("umbrella")
    page.get_by_role("link", name="All organizations").click()
    expect(page.get_by_role("img", name="Stored bytes: 100 %")).to_be_visible()
    expect(page.get_by_role("link", name="Usage")).to_have_attribute("aria-current", "true")
    shot(page, "usage-all", widths=(1440, 1000, 390), full_page=True)

    page.goto(table(AuditEvent))
    page.get_by_label("Action", exact=True).select_option("organization.set_quotas")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("link", name="Remove the filter Action: Changed the quotas of …")).to_be_visible()
    page.get_by_text("More filters").click()
    shot(page, "audit", widths=(1440, 1000, 390), full_page=True)
    page.locator("#result_list tbody th a").click()
    expect(page.get_by_role("row", name="agents - 5000")).to_be_visible()
    shot(page, "audit-event", widths=(1440, 1000, 390), full_page=True)
    page.get_by_role("link", name="All events of this person").click()
    page.get_by_role("link", name="Reset").click()
    shot(page, "audit-all", widths=(1440, 1000, 390), full_page=True)
    page.goto(f"{table(type(world.organization))}{world.organization.pk}/ledger/")
    shot(page, "ledger", widths=(1440, 390), full_page=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download ledger").click()
    assert download.value.suggested_filename == "acme-ledger.ndjson"
