"""What comes after an act: the link in its message, and the way back to the page that needed the new row."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from django.http import HttpRequest, QueryDict
from django.urls import reverse

from apps.console.frame import site
from apps.console.frame.next_steps import NextStep, is_console_page, next_of
from apps.fleet.models import EnrollmentToken
from apps.pipelines.models import Draft
from apps.releases.models import ConfigBundle, Deployment
from apps.tenancy.models import Environment, Organization, Project
from byteor_cloud import urls  # noqa: F401  it registers the console's tables
from tests.browser.confirmed import shown_messages
from tests.browser.filled import act, row_page, signed_in
from tests.browser.test_deploying import deploy_page, filled_in, new_bundle, new_page
from tests.browser.test_people import sent
from tests.worlds import World

NAMED = {"name": "fresh"}


def test_each_act_that_creates_row_offers_next_step_or_says_why_not() -> None:
    undeclared = [
        act.label
        for admin in site._registry.values()
        for act in admin.acts
        if act.creates is not None and not isinstance(act.next_step, NextStep) and not act.next_step
    ]

    assert undeclared == []


def offered(response: Any) -> list[str]:
    """Return the URLs and texts of the links in the messages on the page."""
    texts = [each.message for each in response.context["messages"]]
    return [text.partition('href="')[2].removesuffix("</a>") for text in texts if "href" in text]


@pytest.mark.django_db
def test_message_about_new_row_links_to_next_step(world: World) -> None:
    admin, client = signed_in(world.admin.user), signed_in(world.operator.user)
    version = world.version(world.prod)
    world.agent(world.prod)

    organization = sent(admin, world.admin.user, "create_organization", NAMED, follow=True)
    made = Organization.objects.get(name="fresh")
    project = sent(admin, world.organization, "create_project", NAMED, follow=True)
    environment = sent(admin, Project.objects.get(name="fresh"), "create_environment",
                       {**NAMED, "posture": "dev"}, follow=True)  # fmt: skip
    bundle = client.post(new_page(version), new_bundle(_create=""), follow=True)
    deploying = deploy_page(ConfigBundle.objects.get())
    deployment = client.post(deploying, filled_in(_create=""), follow=True)
    draft = {"_form": filled_in()["_form"], "environment": str(world.dev.pk), "name": "new", "target": "single_ring"}
    drafted = client.post(reverse("admin:pipelines_draft_new"), draft, follow=True)

    assert offered(organization) == [f'{act(made, "create_project")}">Create a project']
    assert offered(project) == [
        f'{act(Project.objects.get(name="fresh"), "create_environment")}">Create an environment'
    ]
    new = Environment.objects.get(name="fresh")
    assert offered(environment) == [f'{act(new, "create_enrollment_token")}">Enroll an agent']
    assert shown_messages(bundle) == [("success", "Config bundle second created.")]
    assert offered(bundle) == [f'{deploying}">Deploy it']
    approval = Deployment.objects.get().approval
    assert shown_messages(deployment) == [("success", "Deployment of quotes v1 requested.")]
    assert offered(deployment) == [f'{row_page(approval)}">Open the approval']
    assert shown_messages(drafted) == [("success", f"Draft {Draft.objects.get(name='new')} created.")]
    links = [offered(each)[0].partition('"')[0] for each in (organization, project, environment)]
    assert [admin.get(link).status_code for link in links] == [200] * 3
    assert client.get(deploying).status_code == client.get(row_page(approval)).status_code == 200


@pytest.mark.django_db
def test_deployment_that_needs_no_approval_offers_no_next_step_but_enrollment_token_does(world: World) -> None:
    bundle = world.bundle(world.prod)
    world.agent(world.prod)
    world.prod.settings = {"approvals_required": False}
    world.prod.save()
    client = signed_in(world.operator.user)

    requested = client.post(deploy_page(bundle), filled_in(_create=""), follow=True)
    secret = sent(signed_in(world.admin.user), world.dev, "create_enrollment_token",
                  {"max_uses": "1", "expires_in_s": "3600"})  # fmt: skip

    assert offered(requested) == []
    assert "Open the agents" in secret.text


@pytest.mark.django_db
def test_person_returns_to_page_that_needed_new_row(world: World) -> None:
    Environment.objects.all().delete()
    client = signed_in(world.admin.user)
    start = reverse("admin:tenancy_environment_choice", args=["create_enrollment_token"])

    choice = client.get(start)
    ((url, text),) = choice.context["creating"]
    to_form = client.get(url, follow=True)
    form = to_form.redirect_chain[-1][0]
    assert text == "Create environment"
    cancel = to_form.context["back"]
    body = {"_confirm": "yes", "_form": to_form.context["form_id"], "name": "lab", "posture": "dev"}
    done = client.post(form, body, follow=True)

    lab = Environment.objects.get(name="lab")
    assert cancel == start
    assert done.redirect_chain[0] == (f"{start}?chosen={lab.pk}", 302)
    assert done.redirect_chain[-1][0] == act(lab, "create_enrollment_token")
    assert shown_messages(done) == [("success", "Environment lab created.")]
    assert offered(done) == []  # the person already is on the next page


@pytest.mark.django_db
def test_page_of_new_enrollment_token_leads_back_to_page_that_needed_token(world: World) -> None:
    back = deploy_page(world.bundle())
    client = signed_in(world.admin.user)
    seen = client.post(back, filled_in(_preview=""))
    ((url, text),) = seen.context["creating"]
    body = {"_confirm": "yes", "_form": filled_in()["_form"], "max_uses": "1", "expires_in_s": "3600"}

    secret = client.post(url, body)

    assert text == "Enroll an agent"
    assert secret.context["result"]["url"] == f"{back}?chosen={EnrollmentToken.objects.get().pk}"
    assert "Open the agents" not in secret.text
    operator = signed_in(world.operator.user).post(back, filled_in(_preview=""))
    assert operator.context["creating"] == []


@pytest.mark.django_db
def test_config_bundle_created_from_choice_page_is_chosen(world: World) -> None:
    client = signed_in(world.operator.user)
    choose = reverse("admin:releases_configbundle_choose", args=[world.prod.pk])

    empty = client.get(choose)
    version = world.version(world.prod)
    url = f"{new_page(version)}?{urlencode({'next': choose})}"
    listed = client.get(choose)
    done = client.post(url, new_bundle(_create=""), follow=True)

    new_draft = f"{reverse('admin:pipelines_draft_new')}?environment={world.prod.pk}"
    assert empty.context["panel"]["button"]["url"] == new_draft
    assert url in listed.text
    assert done.redirect_chain[-1][0] == deploy_page(ConfigBundle.objects.get())


FOREIGN = [
    "https://evil.example/admin/",
    "http:evil.example",
    "//evil.example/admin/",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/admin/\\evil.example",
    "/admin/%5C..%5Cevil",
    "javascript:alert(1)",
    "JavaScript:alert(1)//admin/",
    "data:text/html,x",
    " /admin/",
    "/admin/\n",
    "/%0A/evil.example",
    "\t//evil.example",
    "admin/",
    "?next=/admin/",
    "",
    "/",
    "/api/v1/me",
    "/auth/sign-in/",
    "/admin/../api/v1/me",
    "/admin/%2e%2e/api/v1/me",
    "/admin/./",
    "/nothing/",
]


@pytest.mark.parametrize("url", FOREIGN)
def test_person_is_not_returned_to_url_that_is_no_console_page(url: str) -> None:
    request = HttpRequest()
    request.GET = QueryDict(urlencode({"next": url}))

    assert not is_console_page(url)
    assert next_of(request) == ""


@pytest.mark.parametrize("url", ["/admin/", "/admin/tenancy/project/", "/admin/tenancy/project/?in=all&q=a%2Fb"])
def test_person_returns_to_console_page(url: str) -> None:
    request = HttpRequest()
    request.GET = QueryDict(urlencode({"next": url}))

    assert next_of(request) == url


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "/\\evil.example"])
def test_foreign_url_in_query_of_form_is_ignored(world: World, url: str) -> None:
    client = signed_in(world.admin.user)
    page = f"{act(world.organization, 'create_project')}?{urlencode({'next': url})}"
    form = client.get(page)

    done = client.post(page, {"_confirm": "yes", "_form": form.context["form_id"], **NAMED})

    assert form.context["back"] == row_page(world.organization)
    assert done["Location"] == row_page(Project.objects.get(name="fresh"))
