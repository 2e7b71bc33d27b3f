"""Chat webhooks in the console: create, test, edit, disable, enable and delete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.console.frame.forms import new_form_id
from apps.notifications import tasks
from apps.notifications.models import ChatDelivery, ChatWebhook
from apps.tenancy.services import vault
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in, table
from tests.tenancy.receiver import Receiver, serving
from tests.tenancy.webhook_steps import LOOPBACK
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db


@pytest.fixture
def chat(settings: Any) -> Iterator[Receiver]:
    """Yield a chat server on this host, which webhooks are allowed to reach."""
    settings.CONFIG = replace(settings.CONFIG, webhook_allow_private=LOOPBACK)
    with serving() as served:
        served.statuses, served.content = [200], b"ok"
        yield served


@pytest.mark.django_db(transaction=True)
def test_chat_webhook_is_created_tested_and_edited_by_project_admin(
    world: World, page: Page, chat: Receiver, shot: Callable[..., None]
) -> None:
    sign_in(page, world.project_admin.user)
    page.goto(table(ChatWebhook))
    shot(page, "chat-empty")
    expect(page.get_by_role("link", name="Create organization chat webhook")).to_have_count(0)
    page.get_by_role("link", name="Create project chat webhook").first.click()

    page.get_by_label("Name").fill("#deployments")
    page.get_by_label("Mattermost").check()
    page.get_by_label("URL").fill(chat.url)
    page.get_by_label("All events").uncheck()
    page.get_by_label("An approval is waiting for your decision.").check()
    page.get_by_label("Environment optional").select_option(label="prod")
    shot(page, "chat-create", full_page=True)
    page.get_by_role("button", name="Create project chat webhook").click()
    expect(page.get_by_text("Chat webhook #deployments created.")).to_be_visible()
    made = ChatWebhook.objects.get()
    assert (made.environment, made.format, made.events) == (world.prod, "mattermost", ["approval.needed"])
    shot(page, "chat-row", full_page=True)
    assert chat.url not in page.content()

    page.get_by_role("link", name="Send a test").click()
    page.get_by_role("button", name="Send a test").dblclick()
    expect(page.get_by_text("Test of chat webhook #deployments queued.")).to_be_visible()
    tasks.wake()
    run_jobs()
    assert len(chat.messages) == 1

    page.goto(table(ChatDelivery))
    expect(page.get_by_text("Test message")).to_be_visible()
    shot(page, "chat-deliveries")
    page.goto(act(made, "edit"))
    assert page.get_by_label("URL").input_value() == ""
    shot(page, "chat-edit", full_page=True)
    page.get_by_label("Name").fill("#releases")
    page.get_by_role("button", name="Edit chat webhook").click()
    expect(page.get_by_text("Chat webhook #releases changed.")).to_be_visible()
    made.refresh_from_db()
    assert vault.unseal(made, "url").decode() == chat.url
    page.goto(table(ChatWebhook))
    shot(page, "chat-list")


def create(world: World, **values: Any) -> ChatWebhook:
    """Create a chat webhook of the organization through the console's form."""
    values = {"name": "ops", "format": "slack", "url": "https://chat.example/x", "events": ["*"], **values}
    send(world, world.organization, "create_chat_webhook", values)
    return ChatWebhook.objects.get()


def send(world: World, row: Any, name: str, values: dict[str, Any]) -> Any:
    """Send the form of an act as the organization's admin, and return the response."""
    return signed_in(world.admin.user).post(act(row, name), {"_confirm": "yes", "_form": new_form_id(), **values})


def test_chat_webhook_of_organization_is_disabled_enabled_and_deleted(world: World) -> None:
    made = create(world)
    assert (made.project, made.environment, made.enabled) == (None, None, True)

    for name, expected in (("disable", [False]), ("enable", [True]), ("delete", [])):
        send(world, made, name, {})
        assert list(ChatWebhook.objects.values_list("enabled", flat=True)) == expected


def test_error_of_refused_url_is_shown_in_form(world: World) -> None:
    values = {"name": "ops", "format": "slack", "events": ["*"], "url": "https://10.0.0.1/x"}

    refused = send(world, world.organization, "create_chat_webhook", values)

    assert refused.context_data["form"].errors == {"url": ["The address is private, local or reserved."]}
    assert ChatWebhook.objects.count() == 0


def test_environment_of_other_organization_is_refused(world: World, other: World) -> None:
    send(
        world, world.project, "create_chat_webhook",
        {"name": "x", "format": "slack", "url": "https://chat.example/x", "events": ["*"],
         "environment_id": str(other.prod.pk)},
    )  # fmt: skip

    assert ChatWebhook.objects.count() == 0


def test_list_row_page_and_edit_form_do_not_show_url(world: World) -> None:
    made = create(world, url="https://chat.example/services/abcdefghijkl")
    client = signed_in(world.admin.user)

    for url in (row_page(made), table(ChatWebhook), act(made, "edit")):
        response = client.get(url)
        assert response.status_code == 200
        assert "abcdefghijkl" not in response.text
