"""Members, organizations, projects, environments and credentials in the console: their forms, errors and secrets."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.console.frame.forms import new_form_id
from apps.fleet.models import EnrollmentToken
from apps.tenancy.credentials import credential_digest
from apps.tenancy.models import (
    AuditEvent,
    Environment,
    IdempotencyKey,
    Membership,
    Organization,
    OrganizationKey,
    Project,
    SigningKey,
    User,
    UserToken,
)
from apps.tenancy.permissions import Role
from apps.tenancy.services import organizations, sent_forms
from tests.browser.confirmed import YES, shown_messages
from tests.browser.conftest import sign_in
from tests.browser.filled import act, row_page, signed_in, superuser, table
from tests.worlds import World

CREDENTIALS = (UserToken, OrganizationKey, EnrollmentToken)
MADE = (User, Membership, Organization, Project, Environment, *CREDENTIALS)
SECRET = re.compile(r"bor_[a-z]{3}_[0-9A-Za-z]{49}")
KEY = {"name": "CI", "role": "operator", "project_id": "", "expires_in_s": "86400"}
ENROLLMENT = {"max_uses": "3", "expires_in_s": "3600", "labels": "zone=eu-1, ring=canary"}


def sent(client: Client, row: Any, name: str, values: Mapping[str, Any], **options: Any) -> Any:
    """Send the form of an act, as its page does."""
    body = {"_confirm": "yes", "_form": new_form_id(), **values}
    return client.post(act(row, name), body, **options)


def counts() -> dict[str, int]:
    """Return the number of rows in each table in ``MADE``, and of audit events."""
    return {model.__name__: model._default_manager.count() for model in (*MADE, AuditEvent)}


@pytest.mark.django_db
def test_table_buttons_lead_to_acts_that_create_rows(world: World) -> None:
    organization, project, environment, user = ("tenancy/organization", "tenancy/project", "tenancy/environment",
                                                "tenancy/user")  # fmt: skip
    buttons = {
        Membership: {f"/admin/{organization}/act/invite/", f"/admin/{project}/act/invite/"},
        Project: {f"/admin/{organization}/act/create_project/"},
        Environment: {f"/admin/{project}/act/create_environment/"},
        EnrollmentToken: {f"/admin/{environment}/act/create_enrollment_token/"},
        OrganizationKey: {f"/admin/{organization}/act/create_key/"},
        UserToken: {f"/admin/{user}/act/create_token/"},
        Organization: {f"/admin/{user}/act/create_organization/"},
        SigningKey: {f"/admin/{organization}/act/rotate_signing_key{suffix}/" for suffix in ("", "_at_once")},
    }
    admin, viewer, root = (signed_in(user) for user in (world.admin.user, world.viewer.user, superuser()))

    for model, links in buttons.items():
        listed = admin.get(table(model))
        assert {button["path"] for button in listed.context["actions_list"]} == links
        for link in links - {f"/admin/{environment}/act/create_enrollment_token/"}:
            assert admin.get(link).status_code == root.get(link).status_code == 302
    assert [button["path"] for button in viewer.get(table(Project)).context["actions_list"]] == []
    assert viewer.get(f"/admin/{organization}/act/create_project/").status_code == 403
    assert admin.get(f"/admin/{environment}/act/delete/").status_code == 404
    choice = admin.get(f"/admin/{environment}/act/create_enrollment_token/")
    assert [name for _, name in choice.context["choices"]] == [
        f"acme / trading / {name}" for name in ("dev", "staging", "prod")
    ]
    Environment.objects.all().delete()
    assert "There is no environment for which you may do this." in admin.get(choice.request["PATH_INFO"]).text


@pytest.mark.django_db
def test_secret_is_shown_only_after_submission_and_not_stored_in_plain_text(
    world: World, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    client = signed_in(world.admin.user)
    for row, name, values, model in (
        (world.admin.user, "create_token", {"name": "laptop", "expires_in_s": "86400"}, UserToken),
        (world.organization, "create_key", {**KEY, "project_id": str(world.project.pk)}, OrganizationKey),
        (world.prod, "create_enrollment_token", ENROLLMENT, EnrollmentToken),
    ):
        before, form_id = model.objects.count(), client.get(act(row, name)).context["form_id"]

        shown = sent(client, row, name, {**values, "_form": form_id})

        (secret,) = set(SECRET.findall(shown.text))
        made = model.objects.latest("id")
        assert made.digest == credential_digest(secret)
        assert "no-store" in shown.headers["Cache-Control"]
        assert "Location" not in shown.headers
        # A double click or a reload sends the form again, which must neither create a second row nor lose the secret.
        again = sent(client, row, name, {**values, "_form": form_id})
        assert (secret in again.text, again.headers["Cache-Control"]) == (True, shown.headers["Cache-Control"])
        assert secret.encode() not in b"".join(map(bytes, IdempotencyKey.objects.values_list("response", flat=True)))
        changed = sent(client, row, name, {**values, "name": "other", "_form": form_id})
        IdempotencyKey.objects.filter(expires_at__lt=timezone.now() + sent_forms.RESULT_LIFETIME).update(
            expires_at=timezone.now()
        )
        for late in (changed, sent(client, row, name, {**values, "_form": form_id})):
            assert late.context["form"].non_field_errors()[0].startswith("You already submitted this form")
            assert late.context["form_id"] != form_id
            assert not SECRET.search(late.text)
        assert model.objects.count() == before + 1
        assert secret not in client.get(row_page(made)).text
        stored = json.dumps([
            list(AuditEvent.objects.values_list("changes", "resource_id")),
            [session.get_decoded() for session in Session.objects.all()],
            list(IdempotencyKey.objects.values_list("key", "fingerprint")),
        ], default=str)  # fmt: skip
        assert secret not in stored + caplog.text
    token = EnrollmentToken.objects.latest("id")
    assert (token.max_uses, token.labels, token.replace) == (3, {"zone": "eu-1", "ring": "canary"}, False)
    assert OrganizationKey.objects.get().project == world.project


@pytest.mark.django_db
def test_expired_and_forged_form_ids_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, before = signed_in(world.admin.user), counts()
    long_ago = time.time() - sent_forms.LIFETIME.total_seconds() - 60
    with monkeypatch.context() as patch:
        patch.setattr("django.core.signing.time.time", lambda: long_ago)
        old = new_form_id()

    for form_id in (old, "", "mine", old.replace(old[0], "f")):
        refused = sent(client, world.organization, "create_project", {"name": "side", "_form": form_id})
        assert refused.context["form"].non_field_errors() == [
            "This form has expired. Check the values and send it again."
        ]
    assert counts() == before


@pytest.mark.django_db
def test_resubmitted_form_shows_no_secret_on_other_page_or_without_permission(world: World) -> None:
    form_id = new_form_id()
    values = {**KEY, "_form": form_id}
    made = sent(signed_in(world.admin.user), world.organization, "create_key", values)
    second = organizations.create_organization(name="second", owner=world.admin.user, actor=world.admin.actor)

    elsewhere = sent(signed_in(world.admin.user), second, "create_key", values)
    refused = sent(signed_in(world.viewer.user), world.organization, "create_key", values)

    (secret,) = set(SECRET.findall(made.text))
    assert elsewhere.context["form"].non_field_errors()[0].startswith("You already submitted this form")
    assert refused.status_code == 403
    assert secret not in elsewhere.text + refused.text
    assert OrganizationKey.objects.count() == 1


@pytest.mark.django_db
def test_form_errors_are_shown_at_their_fields_or_above_form(world: World) -> None:
    world.organization.settings = {"email_domains": ["acme.example"], "token_max_days": 10}
    world.organization.save(update_fields=["settings"])
    admin, project_admin = signed_in(world.admin.user), signed_in(world.project_admin.user)
    last_admin = Membership.objects.get(user=world.admin.user)
    taken = "That name is already taken. Choose another one."
    before = counts()

    def errors(row: Any, name: str, values: dict[str, str], client: Client = admin) -> Any:
        return sent(client, row, name, values).context["form"].errors.get_json_data()

    def only(found: dict[str, Any]) -> tuple[str, str]:
        ((name, (error,)),) = found.items()
        return name, error["message"]

    invite = {"email": "viewer@acme.example", "role": "viewer"}
    exists = "This person already has a role here. Change that role instead."
    assert only(errors(world.organization, "invite", invite)) == ("email", exists)
    elsewhere = {**invite, "email": "new@elsewhere.example"}
    assert only(errors(world.organization, "invite", elsewhere))[0] == "email"
    for client in (admin, project_admin):  # org_admin is not a project role
        assert only(errors(world.project, "invite", {**elsewhere, "role": "org_admin"}, client))[0] == "role"
    assert only(errors(last_admin, "change_role", {"role": "viewer"}))[0] == "__all__"
    assert only(errors(world.organization, "create_project", {"name": "trading"})) == ("name", taken)
    assert only(errors(world.organization, "create_project", {"name": "x", "slug": "A"}))[0] == "slug"
    slug = {"name": "Trading", "slug": "trading"}
    assert only(errors(world.organization, "create_project", slug))[0] == "slug"
    assert only(errors(world.project, "create_environment", {"name": "prod", "posture": "dev"})) == ("name", taken)
    assert only(errors(world.project, "create_environment", {"name": "a\u200bb", "posture": "dev"}))[0] == "name"
    long = {"name": "laptop", "expires_in_s": str(11 * 86400)}
    assert only(errors(world.admin.user, "create_token", long))[0] == "expires_in_s"
    for labels in ("zone", "!zone", "=a", "a=" + "x" * 256):
        assert only(errors(world.prod, "create_enrollment_token", {**ENROLLMENT, "labels": labels}))[0] == "labels"
    assert only(errors(world.prod, "create_enrollment_token", {**ENROLLMENT, "max_uses": "100001"}))[0] == "max_uses"
    assert counts() == before
    page = admin.get(act(world.admin.user, "create_token"))
    assert [text for _, text in page.context["form"].fields["expires_in_s"].choices] == [
        "1 hour", "1 day", "7 days", "10 days",
    ]  # fmt: skip
    offered = admin.get(row_page(last_admin)).context["acts"]
    assert offered == []  # the last org_admin can be neither demoted nor removed


@pytest.mark.django_db
def test_project_admin_is_offered_only_project_roles_and_can_change_and_remove_member(world: World) -> None:
    member = Membership.objects.create(
        user=world.viewer.user, organization=world.organization, project=world.project, role=Role.VIEWER
    )
    client = signed_in(world.project_admin.user)

    def roles(row: Any, name: str) -> list[str]:
        return [role for role, _ in client.get(act(row, name)).context["form"].fields["role"].choices]

    assert roles(world.project, "invite") == roles(member, "change_role") == ["viewer", "operator", "project_admin"]
    changed = sent(client, member, "change_role", {"role": "operator"}, follow=True)
    assert shown_messages(changed) == [("success", "Role of member viewer@acme.example (operator in trading) changed.")]
    event = AuditEvent.objects.filter(action="member.update").latest("id")
    assert (event.actor_display, event.changes["role"]) == (world.project_admin.user.email, ["viewer", "operator"])
    removed = client.post(act(member, "remove"), YES, follow=True)
    assert removed.redirect_chain == [(table(Membership), 302)]
    assert not Membership.objects.filter(pk=member.pk).exists()


@pytest.mark.django_db
def test_form_of_act_requires_csrf_token(world: World) -> None:
    client = Client(enforce_csrf_checks=True, headers={"accept": "text/html"})
    client.force_login(world.admin.user, backend="django.contrib.auth.backends.ModelBackend")

    assert sent(client, world.organization, "create_key", KEY).status_code == 403
    assert OrganizationKey.objects.count() == 0


def test_admin_creates_organization_environment_and_tokens_and_invites_member_in_browser(
    world: World, page: Page, shot: Any
) -> None:
    widths = (1440, 390)

    def press(name: str) -> None:
        page.get_by_role("link", name=name).click()

    def send(name: str) -> None:
        page.get_by_role("button", name=name, exact=True).click()

    def look(name: str) -> None:
        page.wait_for_load_state()  # a page that is still loading has no elements to measure
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)
        page.set_viewport_size({"width": 1440, "height": 900})
        shot(page, f"people-{name}", widths=widths, full_page=True)

    sign_in(page, world.admin.user)
    page.goto(table(Organization))
    look("organizations")
    press("Create organization")
    page.get_by_label("Name").fill("Umbrella")
    send("Create organization")
    expect(page.get_by_text("Organization Umbrella created.")).to_be_visible()
    look("organization")

    press("Create project")
    look("project-form")
    page.get_by_label("Name").fill("Pricing")
    send("Create project")
    press("Create environment")
    page.get_by_label("Name").fill("Lab")
    page.get_by_label("prod:", exact=False).check()
    look("environment-form")
    send("Create environment")
    look("environment")

    page.locator("#fleet").get_by_role("link", name="Create enrollment token").click()
    page.get_by_label("Number of agents").fill("2")
    page.get_by_label("Labels").fill("zone")
    send("Create enrollment token")
    expect(page.get_by_role("alert")).to_have_text("Write each label as KEY=VALUE, and separate labels with commas.")
    look("enrollment-form")
    page.get_by_label("Labels").fill("zone=eu-1")
    send("Create enrollment token")
    expect(page.get_by_label("Token")).to_have_text(SECRET)
    look("enrollment-secret")
    page.reload()
    expect(page.get_by_label("Token")).to_have_text(SECRET)
    assert EnrollmentToken.objects.filter(environment__name="Lab").count() == 1

    page.goto(table(Membership))
    look("members")
    press("Invite to organization")
    look("choice")
    press("Umbrella")
    page.get_by_label("E-mail address").fill("ada@umbrella.example")
    page.get_by_label("Operator:", exact=False).check()
    look("invite")
    send("Invite to organization")
    expect(page.get_by_label("Link", exact=True)).to_contain_text("/auth/link/bor_lnk_")
    look("invite-link")
    press("I have copied the link")
    expect(page.get_by_role("link", name="Invite again")).to_be_visible()
    look("member")
    page.goto(table(UserToken))
    press("Create user token")
    page.get_by_label("Name").fill("laptop")
    look("token-form")
    send("Create user token")
    expect(page.get_by_role("heading", name="Copy the secret now")).to_be_visible()
    expect(page.get_by_label("Secret")).to_have_text(SECRET)
    expect(page.get_by_label("Command")).to_contain_text("curl --header")
    look("token-secret")
    press("I have copied the secret")
    page.wait_for_url(f"**{table(UserToken)}*/change/")

    assert Membership.objects.get(user__email="ada@umbrella.example").role == Role.OPERATOR


def test_project_can_be_created_without_javascript(world: World, open_page: Callable[..., Page]) -> None:
    page = sign_in(open_page(java_script_enabled=False), world.admin.user)
    page.set_viewport_size({"width": 390, "height": 900})

    page.goto(row_page(world.organization))
    page.get_by_role("link", name="Create project").click()
    page.get_by_label("Name").fill("trading")
    page.get_by_role("button", name="Create project", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("That name is already taken. Choose another one.")
    page.get_by_label("Name").fill("side")
    page.get_by_role("button", name="Create project", exact=True).click()

    expect(page.get_by_text("Project side created.")).to_be_visible()
