"""The story of a person who is invited by e-mail, is asked for approval by e-mail, chat and bell, and decides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from playwright.sync_api import Page, expect

from apps.notifications.tasks import wake
from apps.releases.models import Deployment
from tests.notifications.stories import claim_all, use_mail_server
from tests.smtp_server import SmtpServer, smtp_server
from tests.tenancy.provider import Provider
from tests.tenancy.receiver import serving
from tests.tenancy.sign_in_flow import configure
from tests.tenancy.webhook_steps import LOOPBACK
from tests.worlds import ALL, World, run_jobs

GRACE = "grace@acme.example"


def deliver() -> None:
    """Let the worker handle new events and send what is due."""
    wake()
    run_jobs()
    wake()
    run_jobs()


def link_in(server: SmtpServer, number: int) -> str:
    """Return the only link in the plain text of an e-mail apart from the link to the settings."""
    links: list[str] = re.findall(r"https?://\S+", server.messages[number].part("plain"))
    [link] = [each for each in links if "/notifications/settings" not in each]
    return link


def test_invited_person_is_asked_for_approval_by_mail_chat_and_bell_and_approves(
    transactional_db: None, live_server: Any, open_page: Callable[..., Page], settings: Any
) -> None:
    world = World("acme")
    world.agent(world.prod)
    claim_all()
    provider = Provider()
    configure(settings, provider.issuer)
    provider.claims = {"sub": "grace", "email": GRACE, "email_verified": True, "name": "Grace"}
    with smtp_server() as server, serving() as chat:
        use_mail_server(settings, server)
        settings.CONFIG = replace(settings.CONFIG, public_base_url=live_server.url, webhook_allow_private=LOOPBACK)
        chat.statuses, chat.content = [200], b"ok"
        chat_webhook = {"name": "releases", "format": "slack", "url": chat.url, "events": ["approval.needed"]}
        made = world.admin.api.post(f"/api/v1/orgs/{world.organization.pk}/chat-webhooks", chat_webhook)
        assert made.status_code == 201, made.json()

        # The admin invites Grace, who signs in with the link in her e-mail.
        invited = world.admin.api.post(
            f"/api/v1/orgs/{world.organization.pk}/members", {"email": GRACE, "role": "operator"}
        )
        assert (invited.status_code, invited.json()["invitation_url"]) == (201, None)
        deliver()
        assert server.messages[0].recipient == GRACE
        assert server.messages[0].message["Subject"] == "admin@acme.example invited you to acme as operator"
        page = open_page()
        page.goto(link_in(server, 0))
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("navigation").first).to_be_visible()
        unread = page.locator(".frame-bell .count")

        # An operator requests a deployment to prod. Grace is notified by e-mail, in the chat, and by the bell.
        bundle = world.bundle(world.prod, "<b>release</b>", env={"LEVEL": "debug"})
        body = {"config_bundle_id": str(bundle.pk), "target": ALL, "note": "fixes *everything* <!channel>"}
        asked = world.operator.api.post(world.path(world.prod, "/deployments"), body)
        assert asked.status_code == 201
        deliver()
        to_grace = [number for number, each in enumerate(server.messages) if each.recipient == GRACE]
        assert len(to_grace) == 2
        mail = server.messages[to_grace[1]]
        sentence = "operator@acme.example asks you to approve the deployment of quotes v1 to 1 agent in prod"
        assert mail.message["Subject"] == sentence
        assert sentence in mail.part("html")
        assert "debug" not in mail.part("plain")  # a value of the configuration
        [posted] = [json.loads(each.body) for each in chat.messages]
        assert "quotes v1" in posted["text"]
        assert "<!channel>" not in posted["text"]
        expect(unread).to_have_text("2 unread")

        # On another computer, Grace follows the link in the e-mail, signs in and approves the request.
        other = open_page()
        other.goto(link_in(server, to_grace[1]))
        other.get_by_role("link", name="Continue to sign in").click()
        expect(other.get_by_role("heading", name=re.compile("quotes v1")).first).to_be_visible()
        other.get_by_role("button", name=re.compile("Approve")).first.click()
        expect(other.locator(".states .pill").first).to_have_text("approved")
        deployment = Deployment.objects.get(pk=asked.json()["id"])
        assert deployment.approval is not None
        assert deployment.approval.decisions.get().user.email == GRACE
        deliver()
        assert [each.recipient for each in server.messages[to_grace[1] + 1 :]] == []
    provider.stop()
