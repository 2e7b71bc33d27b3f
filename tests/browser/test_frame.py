"""The frame of every console page: scope, menu and titles, refusal pages, and the first steps of a tenant."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.artifacts.models import UnreferencedBlob
from apps.console.frame import ReadOnlyAdmin, site
from apps.console.frame.scope import lineage
from apps.fleet.models import Agent, EnrollmentToken, RefusedAgent
from apps.pipelines.models import Draft
from apps.releases.models import Deployment
from apps.tenancy.models import (
    AuditEvent,
    Environment,
    IdempotencyKey,
    Membership,
    Organization,
    Project,
    RateCounter,
    SignInLink,
    User,
    UserToken,
)
from apps.tenancy.permissions import Role
from apps.tenancy.services import accounts, organizations
from byteor_cloud.ids import uuid7
from tests.browser.access import project_member, unrendered_list
from tests.browser.confirmed import YES
from tests.browser.conftest import sign_in
from tests.browser.filled import MODELS, act, fill, row_page, signed_in, superuser, table
from tests.described import OPERATORS_ONLY
from tests.worlds import World

pytestmark = pytest.mark.django_db
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}")
# Words that must not appear in titles: names of apps, libraries and classes, wrong plurals, texts of Django's admin.
FOREIGN_WORDS = re.compile(
    r"tenancy|fleet\b|procrastinate|entrys|known bads|denial counts?|sign in link|memberships?|Select .* to view", re.I
)


def heading(page: Any) -> tuple[str, str]:
    """Return the heading of the page and the title of its browser tab."""
    (shown,) = re.findall(r"frame-title\">\s*<h1>(.*?)</h1>", page.text, re.S)
    (tab,) = re.findall(r"<title>(.*?)</title>", page.text, re.S)
    return html.unescape(shown.strip()), html.unescape(tab.strip())


def trail(page: Any) -> list[tuple[str, str]]:
    """Return the text and URL of each breadcrumb."""
    found = re.search(r'aria-label="Breadcrumbs">(.*?)</nav>', page.text, re.S)
    links = re.findall(r'<a href="([^"]*)">(.*?)</a>', found[1]) if found else []
    return [(html.unescape(text), html.unescape(url)) for url, text in links]


def refusal(page: Any) -> str:
    """Return the HTML of the section on a refusal page, without the request id."""
    return re.sub(r"Request id: [0-9a-f-]+", "", page.text.partition("<section")[2].partition("</section>")[0])


def listed(page: Any) -> set[Any]:
    """Return the primary keys of the rows that a list shows."""
    return {row.pk for row in page.context["cl"].result_list}


def menu_of(page: Any) -> dict[str, str]:
    """Return the URL of each menu entry by its title."""
    return {item["title"]: item["link"] for group in page.context["sidebar_navigation"] for item in group["items"]}


def fill_operators_tables() -> None:
    """Add a row to each table that only installation operators may see."""
    user = User.objects.first()
    assert user is not None
    SignInLink.objects.create(user=user, digest="d", expires_at=timezone.now())
    RateCounter.objects.create(key=f"user:{uuid4()}", minute=1, count=1)
    RefusedAgent.objects.create(agent_id=uuid4(), first_at=timezone.now(), last_at=timezone.now())
    UnreferencedBlob.objects.create(content_hash="sha256:" + "c" * 64)
    IdempotencyKey.objects.create(
        caller=f"user:{uuid4()}", key=str(uuid4()), fingerprint="f", status=201, response=b"{}",
        expires_at=timezone.now(),
    )  # fmt: skip


# -- scope --------------------------------------------------------------------------------------------------------


def test_scope_narrows_lists_of_tenant_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most lists show the rows of the scope and of its parent levels, but none shows rows of sibling scopes."""
    monkeypatch.setattr(ReadOnlyAdmin, "list_per_page", 1000)
    made, elsewhere = fill(world), fill(world, "2").deployment.environment
    side = organizations.create_project(organization=world.organization, name="side", actor=world.admin.actor)
    project_member(world, side, Role.VIEWER)
    client = signed_in(world.admin.user)
    scope = made.deployment.environment

    for label, model in MODELS.items():
        admin = site._registry[model]
        if label in OPERATORS_ONLY:
            continue
        everywhere = unrendered_list(client, table(model))
        here = client.get(table(model), {"in": str(scope.pk)})
        assert here.status_code == 200
        rows = {row.pk: row for row in everywhere.result_list}
        if admin.tenant is None and model is not User and label != "procrastinate.procrastinatejob":
            assert listed(here) == set(rows), label
            continue
        if model is AuditEvent:
            expected = {pk for pk, row in rows.items() if row.environment_id == scope.pk}
        elif model is User:
            expected = {pk for pk, row in rows.items() if not row.email.startswith("viewer-of-side")}
        else:
            near = {pk: lineage(admin.tenant_of(row)) for pk, row in rows.items()}
            shared = lineage(scope)
            expected = {pk for pk, path in near.items() if path == shared[: len(path)]}
        assert listed(here) == expected, label
        if model is not Organization and admin.tenant in {"environment", "agent__environment"}:
            assert expected < set(rows), label
    assert listed(client.get(table(Deployment), {"in": str(world.project.pk)})) == listed(client.get(table(Deployment)))
    assert listed(client.get(table(Deployment), {"in": str(side.pk)})) == set()
    assert listed(client.get(table(Environment), {"in": str(elsewhere.pk)})) == {elsewhere.pk}


def test_list_links_keep_scope(world: World) -> None:
    made = fill(world)
    client, scope = signed_in(world.operator.user), str(made.deployment.environment_id)

    page = client.get(table(Deployment), {"in": scope, "status__exact": "active", "o": "1"})

    changelist = page.context["cl"]
    links = [
        changelist.get_query_string({"p": 2}),
        changelist.get_query_string({"o": "-2"}),
        changelist.clear_all_filters_qs,
        changelist.reset_url,
        *(choice["query_string"] for spec in changelist.filter_specs for choice in spec.choices(changelist)),
        *menu_of(page).values(),
    ]
    hub = row_page(made.deployment.environment)  # a row page always has the scope of its row
    assert [link for link in links if f"in={scope}" not in link and link != hub] == []
    assert f'<input type="hidden" name="in" value="{scope}">' in page.text
    assert listed(client.get(table(Agent), {"in": scope, "q": "acme-agent"})) == {made.agent.pk}
    assert listed(client.get(table(Agent), {"in": str(world.dev.pk), "q": "acme-agent"})) == set()
    assert (
        client.get(table(Agent), {"in": scope, "nosuch": "1"}).headers["Location"] == f"{table(Agent)}?e=1&in={scope}"
    )
    new = client.get(table(Draft), {"in": scope}).context["actions_list"][0]["path"]
    assert client.get(new).context["form"].initial["environment"] == scope


def test_bulk_act_changes_only_rows_in_scope_of_list(world: World) -> None:
    made = fill(world)
    client, other = signed_in(world.operator.user), f"{table(Agent)}?in={world.dev.pk}"
    form = {"action": "drain", "_selected_action": str(made.agent.pk), "comment": "", **YES}

    client.post(other, form)
    made.agent.refresh_from_db()
    assert made.agent.drained_at is None

    client.post(f"{table(Agent)}?in={made.agent.environment_id}", form)
    made.agent.refresh_from_db()
    assert made.agent.drained_at is not None


def test_unknown_or_forbidden_scope_is_not_found(world: World, other: World) -> None:
    """Each page responds alike if the scope is unknown, malformed, deleted or in another organization."""
    client = signed_in(world.admin.user)
    gone = world.environment("dev", "gone")
    organizations.delete(gone, kind="environment", actor=world.admin.actor)
    side = organizations.create_project(organization=other.organization, name="side", actor=other.admin.actor)
    bad = [
        str(other.dev.pk), str(other.project.pk), str(side.pk), str(other.organization.pk), str(gone.pk), str(uuid7()),
        "", "x", "1", str(world.dev.pk).upper(), f"{{{world.dev.pk}}}", str(world.admin.user.pk),
    ]  # fmt: skip

    doors = (table(Agent), "/admin/", "/admin/records/")
    answers = [client.get(door, {"in": scope}) for scope in bad for door in doors]

    assert {answer.status_code for answer in answers} == {404}
    assert (
        len({refusal(answer) for answer in answers}) == 2
    )  # the refusal page of a list also has a button that leads to the list
    for door in answers[: len(doors)]:
        assert "There is no such organization, project or environment, or you may not see it." in refusal(door)
    for label, model in MODELS.items():
        refused = client.get(table(model), {"in": str(other.dev.pk)})
        assert refused.status_code == (403 if label in OPERATORS_ONLY else 404), label
    assert client.get("/admin/").status_code == 200  # the session contains none of these scopes


def test_scope_parameter_does_not_change_scope_of_row_page(world: World) -> None:
    made = fill(world)
    client, scope = signed_in(world.operator.user), made.deployment.environment

    for url in (row_page(made.deployment), act(made.deployment, "roll_back"), row_page(made.agent), row_page(scope)):
        page = client.get(url, {"in": str(world.dev.pk)})
        assert page.status_code == 200
        assert menu_of(page)["Agents"] == f"{table(Agent)}?in={scope.pk}"
        names = [level.text for level in page.context["switcher"].levels()]
        assert names == ["acme", "trading", scope.name]
        assert 'data-posture="prod"' in page.text
    related = client.get(row_page(made.agent)).context["below"]
    assert {url.rpartition("in=")[2] for _, _, url in related} == {str(scope.pk)}


def test_overview_opens_with_last_used_scope(world: World) -> None:
    made = fill(world)
    client, scope = signed_in(world.operator.user), str(made.deployment.environment_id)

    def numbers(page: Any) -> dict[str, int]:
        return {tile.label: tile.value for tile in page.context["tiles"]}

    assert numbers(client.get("/admin/"))["Agents online"] == 1
    assert numbers(client.get("/admin/", {"in": scope}))["Agents online"] == 1
    world.agent(world.dev, "elsewhere")
    assert numbers(client.get("/admin/", {"in": str(world.dev.pk)}))["Dead letters"] == 0
    assert numbers(client.get("/admin/", {"in": scope}))["Dead letters"] == 1

    assert client.get("/admin/").headers["Location"] == f"/admin/?in={scope}"
    client.get(table(Agent), {"in": str(world.project.pk)})
    page = client.get("/admin/", follow=True)
    assert page.redirect_chain == [(f"/admin/?in={world.project.pk}", 302)]
    assert numbers(page)["Agents online"] == 2
    assert all(f"in={world.project.pk}" in tile.url for tile in page.context["tiles"])
    client.get("/admin/", {"in": "all"})
    assert client.get("/admin/").status_code == 200
    client.get("/admin/", {"in": str(world.project.pk)})
    organizations.delete(world.project, kind="project", actor=world.admin.actor)
    assert client.get("/admin/").status_code == 200


def test_scope_switcher_query_count_does_not_depend_on_number_of_organizations(world: World) -> None:
    client = signed_in(superuser())

    def cost(query: dict[str, str]) -> tuple[int, Any]:
        with CaptureQueriesContext(connection) as queries:
            page = client.get(table(UserToken), query)
        return len(queries), page

    scopes = [{}, *({"in": str(row.pk)} for row in (world.organization, world.project, world.dev))]

    def costs() -> list[int]:
        return [min(cost(scope)[0] for _ in range(2)) for scope in scopes]  # only the first request stores the scope

    few = costs()
    Organization.objects.bulk_create(Organization(name=f"company {at}", slug=f"company-{at}") for at in range(120))
    Project.objects.bulk_create(
        Project(organization=each, name="p", slug="p") for each in Organization.objects.filter(name__startswith="c")
    )

    many, page = costs(), cost({})[1]

    assert many == few
    assert max(many) - min(many) <= 3
    organization, project, environment = page.context["switcher"].levels()
    assert [len(level.links) for level in (organization, project)] == [50, 50]
    assert organization.more == "/admin/tenancy/organization/?in=all"
    assert [link.text for link in environment.links] == [
        f"acme / trading / {name}" for name in ("dev", "staging", "prod")
    ]
    here = client.get(table(Agent), {"in": str(world.project.pk)}).context["switcher"].levels()
    assert [link.text for link in here[2].links] == ["dev", "staging", "prod"]
    assert here[2].links[2].posture == "prod"
    assert here[2].links[2].url == f"{table(Agent)}?in={world.prod.pk}"
    assert here[1].everything.url == f"{table(Agent)}?in={world.organization.pk}"
    assert here[0].everything.url == f"{table(Agent)}?in=all"


# -- titles and the menu ------------------------------------------------------------------------------------------


def test_page_titles_use_product_terms_and_contain_no_ids(world: World) -> None:
    made = fill(world)
    fill_operators_tables()
    client, wrong = signed_in(superuser()), []
    for label, model in MODELS.items():
        admin = site._registry[model]
        page = client.get(table(model))
        shown, tab = heading(page)
        assert shown == admin.menu_title(), label
        assert tab == f"{shown} | ByteOr Cloud"
        assert trail(page) == []
        row = admin.get_queryset(page.wsgi_request).first()
        assert row is not None, label
        page = client.get(row_page(row))
        title, tab = heading(page)
        words = "Incident bundle" if label == "artifacts.artifact" else admin.singular.split()[0]
        assert title.lower().startswith(words.lower()) or title.startswith(shown.split()[0]), label
        assert tab.startswith(title)
        assert trail(page)[0][0] == shown, label
        texts = [shown, title, tab, page.text.partition("frame-header")[2].partition("frame-title")[0]]
        wrong += [(label, text) for text in texts[:3] if UUID.search(text) or FOREIGN_WORDS.search(text)]
        names = re.sub(r'(href|value)="[^"]*"', "", texts[3])
        wrong += [(label, names)] if UUID.search(names) or FOREIGN_WORDS.search(names) else []
    assert wrong == []

    assert heading(client.get(row_page(made.agent)))[0] == "Agent acme-agent-1"
    assert heading(client.get(row_page(made.deployment)))[0] == "Deployment of quotes v1 to 1 agent"
    assert heading(client.get(row_page(made.replay)))[0] == "Replay of an incident of acme-agent-1 through quotes v1"
    page = client.get(act(made.deployment, "roll_back"))
    assert heading(page)[0] == "Roll back"
    scope = made.deployment.environment_id
    assert trail(page) == [
        ("Deployments", f"{table(Deployment)}?in={scope}"),
        ("Deployment of quotes v1 to 1 agent", row_page(made.deployment)),
    ]
    assert heading(page)[1] == "Roll back · acme / trading / acme-1 | ByteOr Cloud"


def test_menu_entries_depend_on_role_and_include_daily_tasks(world: World) -> None:
    daily = ["Pipelines", "Config bundles", "Deployments", "Approvals", "Agents", "Artifacts", "Replays", "Fixtures"]
    administration = ["People and keys", "Audit", "Webhooks", "Jobs", "Records"]
    viewer = menu_of(signed_in(world.viewer.user).get("/admin/"))
    admin = menu_of(signed_in(world.admin.user).get("/admin/", {"in": str(world.dev.pk)}))
    operator = menu_of(signed_in(superuser()).get("/admin/"))

    assert [*viewer] == ["Overview", "Environments", *daily, "People and keys", "Jobs", "Records"]
    assert [*admin] == ["Overview", "Environment", *daily, *administration]
    assert admin["Environment"] == row_page(world.dev)
    assert [*operator] == ["Overview", "Environments", *daily, *administration[:-1], "Usage", "Records"]


def test_every_visible_table_is_reachable_from_menu(world: World) -> None:
    """Each table that the person may see is linked from the menu, a tab of a menu page, or the records page."""
    for user in (world.viewer.user, world.operator.user, world.admin.user, superuser()):
        client = signed_in(user)
        start = client.get("/admin/", {"in": "all"})
        found = set(menu_of(start).values())
        for url in list(found):
            page = client.get(url)
            assert page.status_code == 200
            found |= {link for _, link, _ in page.context.get("tabs", [])}
        shown = client.get("/admin/records/").context["records"]
        assert all(holds.endswith(".") for _, holds, _ in shown)
        found |= {url for _, _, url in shown}
        admins = [site._registry[model] for model in MODELS.values()]
        visible = {each.list_url() for each in admins if each.has_view_permission(start.wsgi_request)}
        assert {url.partition("?")[0] for url in found} - {"/admin/", "/admin/records/", "/admin/usage/"} == visible


# -- refusals -----------------------------------------------------------------------------------------------------


def test_missing_rows_and_rows_of_other_tenants_return_same_page(world: World, other: World) -> None:
    made = fill(other)
    client, pages = signed_in(world.admin.user), []
    for pk in (made.deployment.pk, uuid7(), "not-a-key", 7):
        pages += [client.get(f"{table(Deployment)}{pk}/{part}/") for part in ("change", "history", "act/roll_back")]

    assert {page.status_code for page in pages} == {404}
    (text,) = {refusal(page) for page in pages}
    assert "There is no such deployment, or you may not see it." in text
    assert table(Deployment) in text
    assert menu_of(pages[0])["Deployments"] == table(Deployment)
    assert client.get(f"{table(Deployment)}{uuid7()}/live/", headers={"accept": "*/*"}).json()["status"] == 404
    assert "There is no such page" in client.get("/admin/nowhere/").text
    assert client.get("/admin/tenancy/").status_code == 404


def test_refusal_pages_state_reason_or_required_role(world: World) -> None:
    made, client = fill(world), signed_in(world.viewer.user)
    cases = {
        table(AuditEvent): (403, "An operator may see them."),
        table(SignInLink): (403, "Only operators of this installation may see sign-in links."),
        table(EnrollmentToken): (403, "A project admin may see them."),
        act(made.deployment, "roll_back"): (403, "You are not permitted to do this."),
        f"{table(Agent)}?environment__id__exact=%00": (400, "or of the form is malformed or too large."),
    }
    for url, (status, text) in cases.items():
        page = client.get(url)
        assert (page.status_code, text in html.unescape(page.text)) == (status, True), url
        assert "Agents" in menu_of(page)
        assert "unsafe-eval" in page.headers["Content-Security-Policy"]
    wrong = client.get(f"/admin/pipelines/draft/{uuid7()}/save/")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")
    assert "This URL belongs to a form or a button." in wrong.text


# -- an empty installation ----------------------------------------------------------------------------------------


def test_overview_lists_next_steps_until_tenant_is_set_up(world: World) -> None:
    def steps(user: User, scope: Any = "all") -> dict[str, Any]:
        page = signed_in(user).get("/admin/", {"in": getattr(scope, "pk", scope)})
        assert page.context["tiles"] == [] or not page.context["steps"]
        return {step.title: step for step in page.context["steps"]}

    admin = steps(world.admin.user)
    assert [title for title, step in admin.items() if step.is_done] == [
        "Create an organization", "Create a project", "Create an environment", "Invite people",
    ]  # fmt: skip
    assert [title for title, step in admin.items() if step.is_next] == ["Enroll an agent"]
    assert not any(step.who for step in admin.values())
    assert signed_in(world.admin.user).get(admin["Enroll an agent"].url).status_code == 200
    viewer = steps(world.viewer.user, world.dev)
    assert viewer["Enroll an agent"].who.startswith("A project admin can do this.")
    assert viewer["Write a draft"].who.startswith("An operator can do this.")
    empty = organizations.create_project(organization=world.organization, name="empty", actor=world.admin.actor)
    mine = steps(world.admin.user, empty)
    assert mine["Create an environment"].is_next
    direct = signed_in(world.admin.user).get(mine["Create an environment"].url)
    assert direct.headers["Location"] == act(empty, "create_environment")

    fill(world)
    assert steps(world.admin.user) == {}
    assert steps(world.admin.user, empty) != {}


def test_person_without_organization_can_create_organization() -> None:
    person = accounts.get_or_create_account("new@nowhere.example")
    client = signed_in(person)
    assert 'href="/admin/start/"' in client.get("/admin/", follow=True).text

    form = client.get("/admin/start/")
    assert [*menu_of(form)] == ["Create organization"]
    made = client.post("/admin/start/", {"_confirm": "yes", "_form": form.context["form_id"], "name": "Fresh"})

    row = Organization.objects.get(name="Fresh")
    assert made.headers["Location"] == "/admin/setup/?after=organization"
    assert Membership.objects.get(organization=row).user == person
    assert client.get("/admin/").status_code == 200
    client.logout()
    assert client.get("/admin/start/").headers["Location"] == "/admin/login/"


# -- in the browser -----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_scope_can_be_switched_by_mouse_and_keyboard(
    open_page: Callable[..., Page], world: World, shot: Callable[..., None]
) -> None:
    page = sign_in(open_page(), world.admin.user)
    page.goto(f"{table(Agent)}?in={world.prod.pk}")
    switch = page.locator(".switch summary")

    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        switch.nth(2).click()
        page.locator(".switch[open]").get_by_role("link", name="dev").click()
        expect(switch.nth(2)).to_have_accessible_name("Environment: dev dev")
        assert page.url.endswith(f"{table(Agent)}?in={world.dev.pk}")

        switch.nth(2).focus()
        page.keyboard.press("Enter")
        expect(page.locator(".switch[open]")).to_have_count(1)
        page.keyboard.press("Escape")
        expect(page.locator(".switch[open]")).to_have_count(0)
        expect(switch.nth(2)).to_be_focused()
        page.keyboard.press("Space")
        for _ in range(4):
            page.keyboard.press("Tab")
        expect(page.locator(".switch[open] a:focus")).to_have_text(re.compile("prod"))
        box = page.locator(".switch[open] ul").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        page.keyboard.press("Enter")
        expect(switch.nth(2)).to_have_accessible_name("Environment: prod prod")
        expect(page.get_by_role("heading", level=1)).to_have_text("Agents")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    switch.nth(0).click()
    page.mouse.click(200, 700)
    expect(page.locator(".switch[open]")).to_have_count(0)
    shot(page, "agents-empty", widths=(1440, 390))
