"""The steps to the first deployment, how people follow or hide them, and the page of a new enrollment token."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import Agent, EnrollmentToken
from apps.fleet.services import enrollment
from apps.fleet.services.enrollment import Enrollment
from apps.pipelines.services import drafts
from apps.releases.models import Deployment
from apps.tenancy.actors import Actor
from apps.tenancy.models import Project
from apps.tenancy.services import accounts, organizations
from tests.browser.filled import act, fill, row_page, signed_in, superuser
from tests.browser.test_people import ENROLLMENT, sent
from tests.worlds import PLAN, World

pytestmark = pytest.mark.django_db
LIST = "/admin/pipelines/draft/"


def bar(client: Any, url: str = LIST) -> Any:
    """Return the next step as a page shows it, or None if the page shows none."""
    return client.get(url).context["setup"]


def follow(world: World) -> Any:
    """Return the client of an admin who has opened the overview of a new organization."""
    client = signed_in(world.admin.user)
    client.get("/admin/", {"in": "all"})
    return client


def test_created_row_leads_to_form_of_next_step() -> None:
    client = signed_in(accounts.get_or_create_account("new@nowhere.example"))
    form = client.get("/admin/start/")

    made = client.post(
        "/admin/start/", {"name": "Acme", "_confirm": "yes", "_form": form.context["form_id"]}, follow=True
    )

    project = made.redirect_chain[-1][0]
    assert project.endswith("/act/create_project/")
    assert "Organization Acme created." in made.text
    shown = made.context["setup"]
    assert (shown.number, shown.total, shown.title, shown.skip) == (2, 10, "Create a project", "")
    made = client.post(project, {"name": "Trading", "_confirm": "yes", "_form": made.context["form_id"]}, follow=True)
    assert made.redirect_chain[-1][0] == act(Project.objects.get(), "create_environment")
    assert "Project Trading created." in made.text


def test_creation_leads_to_row_page_if_person_does_not_follow_steps(world: World) -> None:
    client = signed_in(world.admin.user)

    made = sent(client, world.organization, "create_project", {"name": "second"})

    assert made.headers["Location"] == row_page(Project.objects.get(name="second"))
    assert bar(client) is None


def test_optional_step_can_be_skipped(world: World) -> None:
    client = follow(world)

    assert bar(client).title == "Enroll an agent"
    assert client.get(bar(client).skip).headers["Location"] == "/admin/pipelines/draft/new/"
    # Once a later step is done, an optional step before it is never the next one.
    drafts.create_draft(environment=world.dev, name="quotes", plan=PLAN, actor=world.operator.actor)
    assert bar(client).title == "Promote the draft"


def test_steps_open_only_rows_that_person_can_see(world: World, other: World) -> None:
    client = follow(world)
    draft = drafts.create_draft(environment=world.dev, name="quotes", plan=PLAN, actor=world.operator.actor)
    drafts.create_draft(environment=other.dev, name="hidden", plan=PLAN, actor=other.operator.actor)

    def target(step: str) -> str:
        location: str = client.get(f"/admin/setup/{step}/").headers["Location"]
        return location

    assert target("version") == f"{LIST}{draft.pk}/edit/"
    assert target("configbundle") == "/admin/pipelines/version/"
    bundle = world.bundle()
    assert target("configbundle") == f"/admin/pipelines/version/{bundle.version.pk}/config-bundle/" or target(
        "configbundle"
    ).endswith(f"{bundle.version.pk}/")
    assert target("deployment").startswith(f"/admin/releases/configbundle/{bundle.pk}/")
    assert target("nonsense") == "/admin/start/"


def test_steps_end_when_deployment_no_longer_waits_for_approval(world: World) -> None:
    client = follow(world)
    world.agent(world.prod)
    deployment = world.deployment(world.bundle(world.prod))

    assert bar(client).title == "Approve the deployment"
    Deployment.objects.filter(pk=deployment.pk).update(status="building")

    assert bar(client) is None
    assert client.get("/admin/setup/").headers["Location"] == "/admin/"
    assert client.get("/admin/").context["steps"] == []


def test_hidden_steps_stay_hidden_until_person_shows_them(world: World) -> None:
    client = follow(world)

    client.post("/admin/setup/hide/")

    page = client.get("/admin/")
    assert (page.context["steps"], bar(client)) == ([], None)
    assert "Show the steps to the first deployment" in page.text
    client.post("/admin/setup/hide/", {"show": ""})
    assert client.get("/admin/").context["steps"]
    assert bar(client) is not None
    assert client.get("/admin/setup/hide/").status_code == 405


def test_person_without_permission_learns_who_can_do_next_step(world: World) -> None:
    client = signed_in(world.viewer.user)
    client.get("/admin/", {"in": "all"})

    assert bar(client).who.startswith("A project admin can do this.")
    assert client.get("/admin/setup/").headers["Location"] == "/admin/"


def test_bar_of_steps_takes_one_query(world: World) -> None:
    client = signed_in(world.admin.user)

    def count() -> int:
        client.get(LIST)
        with CaptureQueriesContext(connection) as queries:
            client.get(LIST)
        return len(queries)

    before = count()
    client.get("/admin/", {"in": "all"})
    assert count() == before + 1
    fill(world)
    client.get("/admin/", {"in": "all"})
    assert count() == before


# -- the page of a new enrollment token -------------------------------------------------------------------------


def enroll(world: World, token: EnrollmentToken, name: str) -> Agent:
    """Enroll an agent with the token, as the API does."""
    actor = Actor("enrollment_token", str(token.pk), "token")
    return enrollment.enroll(Enrollment(token=token, environment=token.environment, name=name, actor=actor)).agent


def test_enroll_command_contains_environment_and_package_but_not_token(world: World) -> None:
    page = sent(signed_in(world.admin.user), world.prod, "create_enrollment_token", ENROLLMENT)

    result = page.context["result"]
    assert result["secret"].startswith("bor_enr_")
    assert result["secret"] not in result["command"]
    assert f"/{world.prod.pk} &&" in result["command"]
    package = result["command"].partition("'http://testserver")[2].partition("#")[0]
    assert page.client.get(package).status_code == 200


def test_enrollment_token_page_names_agents_that_enroll_with_token(world: World, other: World) -> None:
    token, _ = enrollment.create_enrollment_token(environment=world.prod, max_uses=2, actor=world.admin.actor)
    beside, _ = enrollment.create_enrollment_token(environment=world.prod, max_uses=2, actor=world.admin.actor)
    enroll(world, beside, "elsewhere")
    url, client = f"/admin/fleet/enrollmenttoken/{token.pk}/enrolled/", signed_in(world.project_admin.user)

    assert "Waiting for your agent …" in client.get(url).text
    agent = enroll(world, token, "<b>vm-1")
    page = client.get(url)
    assert "&lt;b&gt;vm-1</a> <span>enrolled. Waiting for its first heartbeat …" in page.text
    assert "elsewhere" not in page.text
    type(agent.heartbeat).objects.filter(pk=agent.pk).update(last_seen_at=timezone.now())
    page = client.get(url)
    assert "&lt;b&gt;vm-1</a> <span>connected" in page.text
    assert "1 of 2 agents has enrolled. Waiting for more …" in page.text
    assert 'data-moving="yes"' in page.text
    EnrollmentToken.objects.filter(pk=token.pk).update(revoked_at=timezone.now())
    page = client.get(url)
    assert "The token is revoked." in page.text
    assert 'data-moving="no"' in page.text

    assert signed_in(superuser()).get(url).status_code == 200
    for person in (world.operator, world.viewer, other.admin):
        assert signed_in(person.user).get(url).status_code == 404


def test_project_created_later_has_its_own_steps(world: World) -> None:
    fill(world)
    client = signed_in(world.admin.user)
    empty = organizations.create_project(organization=world.organization, name="empty", actor=world.admin.actor)

    assert client.get("/admin/", {"in": str(empty.pk)}).context["steps"]
    assert bar(client, row_page(empty)).title == "Create an environment"
    assert bar(client, row_page(world.project)) is None
