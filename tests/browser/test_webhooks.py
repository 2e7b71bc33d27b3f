"""Webhooks in the console: create, test, edit, rotate the secret, disable and delete; deliveries and their requests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.tenancy.models import AuditEvent, Environment, Webhook, WebhookDelivery
from apps.tenancy.services import organizations, vault
from apps.tenancy.services.webhooks import signing
from tests.browser.confirmed import YES, shown_messages
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in, table
from tests.browser.test_people import sent
from tests.resources.webhooks import NEW
from tests.tenancy.receiver import Receiver, serving
from tests.tenancy.webhook_steps import LOOPBACK, is_signed, record_event
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db
SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{43}=")
WIDTHS = (1440, 1000, 390)


@pytest.fixture
def hooked(settings: Any) -> Iterator[Receiver]:
    """Yield a receiver on this host, which webhooks are allowed to reach."""
    settings.CONFIG = replace(settings.CONFIG, webhook_allow_private=LOOPBACK)
    with serving() as served:
        yield served


@pytest.mark.django_db(transaction=True)
def test_admin_creates_and_tests_webhook_then_sees_delivery_and_rotates_secret(
    world: World, page: Page, hooked: Receiver, shot: Callable[..., None]
) -> None:
    hooked.statuses = [500, 204]
    sign_in(page, world.admin.user)
    page.goto(table(Webhook))
    shot(page, "webhooks-empty")
    page.get_by_role("link", name="Create webhook").first.click()
    page.get_by_label("URL").fill(hooked.url)
    page.get_by_label("Description").fill("pager")
    page.get_by_label("All events").uncheck()
    page.get_by_label("Deployment failed").check()
    page.get_by_label("Send events of").select_option(label="trading / prod")
    shot(page, "webhook-create", widths=WIDTHS, full_page=True)
    page.get_by_role("button", name="Create webhook").dblclick()
    expect(page.get_by_role("heading", name="Copy the signing secret now")).to_be_visible()
    shot(page, "webhook-secret", widths=WIDTHS)
    first = page.locator("#secret").inner_text()
    made = Webhook.objects.get()
    assert (made.events, made.environment, made.project) == (["deployment.fail"], world.prod, None)
    page.get_by_role("link", name="I have copied the signing secret").click()

    page.get_by_role("link", name="Send a test").click()
    page.get_by_role("button", name="Send a test").dblclick()
    expect(page.get_by_text("Test of webhook pager queued.")).to_be_visible()
    run_jobs()
    assert len(hooked.messages) == 1
    assert is_signed(hooked.messages[0], first)
    page.reload()
    shot(page, "webhook-page", widths=WIDTHS, full_page=True)
    page.locator("#deliveries").get_by_role("link", name="Test event").click()
    expect(page.locator("#attempts")).to_contain_text("500")
    expect(page.locator("#request")).to_contain_text('"type": "ping"')
    shot(page, "webhook-delivery", widths=WIDTHS, full_page=True)
    page.get_by_role("link", name="Redeliver").click()
    page.get_by_role("button", name="Redeliver").click()
    run_jobs()
    page.reload()
    expect(page.locator("#attempts")).to_contain_text("204")
    page.goto(table(WebhookDelivery))
    shot(page, "webhook-deliveries", widths=WIDTHS)

    page.goto(act(made, "rotate_secret"))
    page.get_by_role("button", name="Rotate secret").click()
    second = page.locator("#secret").inner_text()
    assert SECRET.fullmatch(second)
    assert second != first
    page.goto(table(Webhook))
    shot(page, "webhooks", widths=WIDTHS)


def test_webhook_is_edited_disabled_enabled_and_deleted(world: World) -> None:
    client = signed_in(world.admin.user)
    sent(client, world.organization, "create_webhook", {**NEW, "scope": f"project:{world.project.pk}"})
    made = Webhook.objects.get()
    assert (made.url, made.description, made.events) == (NEW["url"], "pager", ["deployment.*"])
    assert (made.project, made.environment, made.enabled) == (world.project, None, True)
    form = client.get(act(made, "edit")).context["form"]
    assert {name: form[name].value() for name in form.fields} == {
        **NEW, "events": ["deployment.*"], "scope": f"project:{world.project.pk}",
    }  # fmt: skip

    changed = {"url": "https://other.example/x", "description": "", "events": ["approval.request", "deployment.fail"]}
    done = sent(client, made, "edit", {**changed, "scope": f"environment:{world.dev.pk}"}, follow=True)

    made.refresh_from_db()
    assert shown_messages(done) == [("success", "Webhook other.example changed.")]
    assert (made.url, made.description, made.events) == (*changed.values(),)
    assert (made.project, made.environment) == (None, world.dev)
    for name, expected in (("disable", [False]), ("enable", [True]), ("delete", [])):
        client.post(act(made, name), YES)
        assert list(Webhook.objects.values_list("enabled", flat=True)) == expected


def test_edit_that_keeps_deleted_environment_of_webhook_is_refused(world: World) -> None:
    client = signed_in(world.admin.user)
    gone = world.environment("dev", "gone")
    sent(client, world.organization, "create_webhook", {**NEW, "scope": f"environment:{gone.pk}"})
    made = Webhook.objects.get()
    Environment.objects.filter(pk=gone.pk).update(deleted_at=timezone.now())

    form = client.get(act(made, "edit")).context["form"]
    values = {name: form[name].value() for name in form.fields}
    refused = sent(client, made, "edit", {**values, "description": "changed"})

    assert values["scope"] in dict(form.fields["scope"].choices)
    assert refused.context["form"].errors.keys() == {"scope"}
    made.refresh_from_db()
    assert (made.environment_id, made.project_id) == (gone.pk, None)


@pytest.mark.parametrize(
    ("changed", "errors"),
    [
        ({"url": "https://10.0.0.1/x"}, {"url": ["The address is private, local or reserved."]}),
        ({"url": "http://hooks.example/x"}, {"url": ["The URL must start with https://."]}),
        ({"events": []}, {"events": ["This field is required."]}),
        ({"events": ["everything"]}, None),
        ({"scope": "project:x"}, None),
    ],
)
def test_errors_of_refused_values_are_shown_in_form_and_nothing_changes(
    world: World, changed: dict[str, Any], errors: dict[str, list[str]] | None
) -> None:
    refused = sent(signed_in(world.admin.user), world.organization, "create_webhook", {**NEW, **changed})

    found = refused.context["form"].errors
    assert found == errors if errors else found.keys() == changed.keys()
    assert (Webhook.objects.count(), AuditEvent.objects.filter(action="webhook.create").count()) == (0, 0)


def test_environment_of_other_organization_is_refused(world: World, other: World) -> None:
    values = {**NEW, "scope": f"environment:{other.prod.pk}"}

    refused = sent(signed_in(world.admin.user), world.organization, "create_webhook", values)

    assert refused.context["form"].errors.keys() == {"scope"}
    assert Webhook.objects.count() == 0


def test_webhook_of_environment_is_listed_only_in_scopes_that_contain_environment(world: World) -> None:
    client = signed_in(world.admin.user)
    sent(client, world.organization, "create_webhook", {**NEW, "scope": f"environment:{world.dev.pk}"})
    other = organizations.create_project(organization=world.organization, name="billing", actor=world.admin.actor)

    def is_listed(scope: Any) -> bool:
        listed = client.get(table(Webhook), {"in": str(scope.pk)}).context["cl"].result_list
        return list(listed) == [Webhook.objects.get()]

    assert [is_listed(each) for each in (world.organization, world.project, world.dev)] == [True] * 3
    assert [is_listed(each) for each in (world.prod, other)] == [False] * 2


def test_secret_is_shown_only_when_created_or_rotated(world: World) -> None:
    client = signed_in(world.admin.user)
    created = sent(client, world.organization, "create_webhook", NEW)
    made = Webhook.objects.get()
    rotated = sent(client, made, "rotate_secret", {})

    first, second = (SECRET.search(page.text) for page in (created, rotated))
    assert first is not None and second is not None  # noqa: PT018  for mypy
    made.refresh_from_db()
    assert second[0] == signing.text(vault.unseal(made, "secret"))
    assert first[0] == signing.text(vault.unseal(made, "previous_secret"))
    assert all("no-store" in page.headers["Cache-Control"] for page in (created, rotated))
    for url in (row_page(made), table(Webhook), act(made, "edit"), act(made, "rotate_secret")):
        page = client.get(url)
        assert (page.status_code, SECRET.search(page.text)) == (200, None)
    assert "Previous secret signs until" in client.get(row_page(made)).text


def test_delivery_shows_request_and_attempts_without_signature(world: World) -> None:
    client = signed_in(world.admin.user)
    sent(client, world.organization, "create_webhook", {**NEW, "events": "*"})
    event = record_event(world, "deployment.fail")
    delivery = WebhookDelivery.objects.get()
    attempts = [(500, "", 12), (None, "timeout", 10_000)]
    WebhookDelivery.objects.update(
        attempts=[
            {"at": timezone.now().isoformat(), "status": status, "error": error, "duration_ms": duration}
            for status, error, duration in attempts
        ]
    )

    page = client.get(row_page(delivery))

    panels = {panel["id"]: panel for panel in page.context["summary"]["panels"]}
    assert [row[1:] for row in panels["attempts"]["rows"]] == [
        ("No response within 10 s", "10,000 ms"),
        ("500", "12 ms"),
    ]
    assert panels["request"]["url_line"] == f"POST {NEW['url']}"
    headers = dict(panels["request"]["headers"])
    assert headers["webhook-id"] == str(event.pk)
    assert headers["webhook-signature"] == "v1,… (not shown)"
    body = json.loads(panels["request"]["content"])
    assert (body["id"], body["type"], body["changes"]) == (str(event.pk), "deployment.fail", {"n": [0, 1]})


def test_deliveries_are_filtered_by_event_status_and_webhook(world: World) -> None:
    client = signed_in(world.admin.user)
    sent(client, world.organization, "create_webhook", {**NEW, "events": "*"})
    client.post(act(Webhook.objects.get(), "test"), YES)
    record_event(world, "deployment.fail")
    webhook = Webhook.objects.get()

    def listed(query: str) -> list[str]:
        return [row.type for row in client.get(f"{table(WebhookDelivery)}?{query}").context["cl"].result_list]

    assert listed("type=ping") == ["ping"]
    assert listed("type=deployment.fail") == ["deployment.fail"]
    assert listed("status__exact=failed") == []
    assert listed(f"webhook__id__exact={webhook.pk}") == ["deployment.fail", "ping"]


def test_only_organization_admins_see_and_change_webhooks(world: World, other: World) -> None:
    sent(signed_in(world.admin.user), world.organization, "create_webhook", NEW)
    made, events = Webhook.objects.get(), AuditEvent.objects.count()

    for person in (world.viewer, world.operator, world.project_admin, other.admin):
        client = signed_in(person.user)
        assert client.get(row_page(made)).status_code in {403, 404}
        for name in ("edit", "rotate_secret", "disable", "delete", "test"):
            assert sent(client, made, name, NEW).status_code in {403, 404}
        assert sent(client, world.organization, "create_webhook", NEW).status_code in {403, 404}
    assert (Webhook.objects.count(), AuditEvent.objects.count()) == (1, events)
