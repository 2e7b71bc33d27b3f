"""Invitations in the console: the link that is shown once, and inviting a member again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.tenancy.models import Membership, SignInLink, User
from tests.browser.confirmed import shown_messages
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in
from tests.browser.test_people import sent
from tests.worlds import World

BOB = "bob@people.example"
INVITATION = {"email": BOB, "role": "operator"}


def member() -> Membership:
    return Membership.objects.get(user__email=BOB)


def test_admin_copies_link_with_which_invited_person_signs_in(
    world: World, open_page: Callable[..., Page], shot: Callable[..., None]
) -> None:
    page = sign_in(open_page(permissions=["clipboard-read", "clipboard-write"]), world.admin.user)
    page.goto(act(world.organization, "invite"))
    shot(page, "invite-form")
    page.get_by_label("E-mail address").fill(BOB)
    page.get_by_label("Operator:", exact=False).check()
    page.get_by_role("button", name="Invite to organization").click()

    link = page.get_by_label("Link", exact=True)
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    shot(page, "invite-link", widths=(1440, 390))
    copied: str = page.evaluate("navigator.clipboard.readText()")
    assert copied == link.text_content()
    assert "/auth/link/bor_lnk_" in copied
    expires_at = SignInLink.objects.get(user=member().user).expires_at
    expect(page.get_by_text(f"It works once, until {expires_at:%Y-%m-%d %H:%M} UTC.")).to_be_visible()
    page.get_by_role("link", name="I have copied the link").click()
    page.wait_for_url(f"**{row_page(member())}")
    expect(page.get_by_text(copied)).to_have_count(0)
    shot(page, "invite-member")

    invited = open_page()
    invited.goto(copied)
    invited.get_by_role("button", name="Sign in").click()
    invited.wait_for_url("**/admin/")
    assert User.objects.claimed().filter(email=BOB).exists()


@pytest.mark.django_db
def test_member_page_shows_no_link_and_inviting_member_again_shows_new_link(world: World) -> None:
    client = signed_in(world.admin.user)
    shown = sent(client, world.organization, "invite", INVITATION)

    assert shown.context["result"]["noun"] == "link"
    assert "no-store" in shown.headers["Cache-Control"]
    page = client.get(row_page(member()))
    assert act(member(), "invite_again") in page.text
    assert "bor_lnk_" not in page.text
    early = sent(client, member(), "invite_again", {})
    assert early.context["form"].non_field_errors()[0].startswith("The last invitation was sent less than a minute ago")

    Membership.objects.update(invited_at=timezone.now() - timedelta(minutes=1))
    again = sent(client, member(), "invite_again", {})

    assert again.context["title"] == "Member invited again"
    assert again.context["result"]["secret"].rpartition("/")[0] == "http://testserver/auth/link"
    assert again.context["result"]["secret"] != shown.context["result"]["secret"]


@pytest.mark.django_db
@pytest.mark.parametrize("case", ["project admin", "e-mail"])
def test_invitation_by_project_admin_or_by_mail_creates_no_link_to_copy(world: World, settings: Any, case: str) -> None:
    person = world.project_admin
    if case == "e-mail":
        person, settings.CONFIG = world.admin, replace(settings.CONFIG, smtp_url="smtp://mail.example")
    client = signed_in(person.user)

    sent(client, world.project, "invite", INVITATION)
    page = client.get(row_page(member()))

    assert shown_messages(page) == [("success", f"Member {BOB} (operator in trading) added.")]
    assert not SignInLink.objects.filter(user=member().user).exists()


@pytest.mark.django_db
def test_member_who_has_signed_in_cannot_be_invited_again(world: World) -> None:
    client = signed_in(world.admin.user)
    sent(client, world.organization, "invite", INVITATION)
    User.objects.filter(email=BOB).update(last_login=timezone.now())

    assert act(member(), "invite_again") not in client.get(row_page(member())).text
    refused = sent(client, member(), "invite_again", {})
    assert refused.context["form"].non_field_errors() == [
        "This person cannot be invited again, because somebody has already used the account, or because it belongs "
        "to an installation operator."
    ]
