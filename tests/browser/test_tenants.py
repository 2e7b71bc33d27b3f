"""Isolation of tenants in the console: nobody sees or changes rows of another tenant."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.fleet.models import EnrollmentToken
from apps.releases.models import Approval, Deployment
from apps.tenancy.console import site
from apps.tenancy.models import AuditEvent, DenialCount, Membership, OrganizationKey, User, UserToken
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import accounts, members, organizations
from tests.browser.filled import MODELS, act, fill, row_page, signed_in, superuser, table
from tests.worlds import World

pytestmark = pytest.mark.django_db
OPERATORS_ONLY = {
    "tenancy.signinlink",
    "tenancy.idempotencykey",
    "tenancy.ratecounter",
    "artifacts.unreferencedblob",
}


def project_member(world: World, project: Any, role: Role) -> User:
    """Create a person whose only role is in one project."""
    return members.add(
        organization=world.organization, project=project, email=f"{role}-of-{project.name}@{world.name}.example",
        role=role, granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    ).user  # fmt: skip


def test_a_member_sees_the_own_tenants_rows_and_no_other(world: World, other: World) -> None:
    fill(world)
    client = signed_in(world.admin.user)
    alone = {label: client.get(table(model)) for label, model in MODELS.items() if label not in OPERATORS_ONLY}
    fill(other)

    beside = {label: client.get(table(model)) for label, model in MODELS.items() if label not in OPERATORS_ONLY}

    def rows(pages: dict[str, Any]) -> dict[str, list[Any]]:
        return {label: [row.pk for row in page.context["cl"].result_list] for label, page in pages.items()}

    assert rows(beside) == rows(alone)
    assert all(rows(alone).values())
    # Rows of other tenants appear neither in cells nor in the choices of filters.
    assert [label for label, page in beside.items() if "umbrella" in page.text] == []
    assert {label: client.get(table(MODELS[label])).status_code for label in OPERATORS_ONLY} == dict.fromkeys(
        OPERATORS_ONLY, 403
    )


def test_page_of_another_tenant_is_not_found(world: World, other: World) -> None:
    fill(world)
    fill(other)
    client, answers = signed_in(other.admin.user), {}

    for label, model in MODELS.items():
        if label in OPERATORS_ONLY:
            continue
        mine = site._registry[model].get_queryset(client.get("/admin/").wsgi_request).values("pk")
        row = model._default_manager.exclude(pk__in=mine).first()
        assert row is not None, label
        doors = [row_page(row), row_page(row).replace("/change/", "/history/")]
        answers[label] = {client.get(door).status_code for door in doors}
        acts = [act(row, each.name) for each in site._registry[model].all_acts]
        assert {client.get(each).status_code for each in acts} <= {404}, label

    assert answers == {label: {404} for label in MODELS if label not in OPERATORS_ONLY}


@pytest.mark.parametrize("confirm", [{}, {"_confirm": "yes", "comment": "mine now"}])
def test_acts_on_a_strangers_rows_do_nothing(world: World, other: World, confirm: dict[str, str]) -> None:
    made = fill(world)
    approval = Approval.objects.get(deployment=made.deployment)
    client = signed_in(other.admin.user)
    before = {label: list(model._default_manager.order_by("pk").values()) for label, model in MODELS.items()}

    for row in (
        made.deployment,
        approval,
        made.agent,
        made.job,
        world.project,
        world.dev,
        OrganizationKey.objects.get(),
    ):
        for each in site._registry[type(row)].acts:
            client.post(act(row, each.name), confirm)
            client.post(table(type(row)), {"action": each.name, "_selected_action": str(row.pk), **confirm})

    after = {label: list(model._default_manager.order_by("pk").values()) for label, model in MODELS.items()}
    assert [label for label in MODELS if after[label] != before[label]] == []


@pytest.mark.parametrize(
    ("app", "model", "field", "mine"),
    [
        ("releases", "deployment", "environment", ["dev", "dev-umbrella", "prod", "staging", "umbrella-1"]),
        ("fleet", "agentkey", "agent", ["umbrella-agent-1"]),
        ("tenancy", "project", "organization", ["umbrella"]),
    ],
)
def test_autocomplete_lists_only_own_rows(
    world: World, other: World, app: str, model: str, field: str, mine: list[str]
) -> None:
    fill(world)
    fill(other)
    other.environment("dev", "dev-umbrella")

    answer = signed_in(other.admin.user).get(
        "/admin/autocomplete/", {"app_label": app, "model_name": model, "field_name": field, "term": ""}
    )

    assert sorted(each["text"] for each in answer.json()["results"]) == mine


def test_generic_admin_urls_reveal_nothing(world: World, other: World) -> None:
    made = fill(world)
    kind = ContentType.objects.get_for_model(Deployment)

    assert signed_in(other.admin.user).get(f"/admin/r/{kind.pk}/{made.deployment.pk}/").status_code == 404


def test_a_role_in_one_project_shows_that_project(world: World) -> None:
    made = fill(world)
    side = organizations.create_project(organization=world.organization, name="side", actor=world.admin.actor)
    client = signed_in(project_member(world, side, Role.OPERATOR))

    def names(label: str) -> list[str]:
        return [str(row) for row in client.get(table(MODELS[label])).context["cl"].result_list]

    assert names("tenancy.project") == ["side"]
    assert names("tenancy.organization") == ["acme"]
    assert [names(label) for label in ("tenancy.environment", "fleet.agent", "releases.deployment")] == [[], [], []]
    assert names("tenancy.user") == ["operator-of-side@acme.example"]
    assert client.get(row_page(made.deployment)).status_code == 404


def test_project_role_decides_in_the_project(world: World) -> None:
    made = fill(world)
    members.add(
        organization=world.organization, project=world.project, email=world.operator.user.email, role=Role.VIEWER,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    )  # fmt: skip
    client = signed_in(world.operator.user)

    page = client.get(row_page(made.deployment))
    refused = client.post(act(made.deployment, "roll_back"), {"_confirm": "yes", "comment": "why not"})

    assert page.context["acts"] == []
    assert refused.status_code == 403
    assert Deployment.objects.get().status == "active"


def test_lower_project_role_hides_rows_of_the_project(world: World) -> None:
    fill(world)
    side = organizations.create_project(organization=world.organization, name="side", actor=world.admin.actor)
    elsewhere = organizations.create_environment(
        project=side, name="elsewhere", posture="dev", may_loosen=True, actor=world.admin.actor
    )
    world.enrollment_token(elsewhere)
    members.add(
        organization=world.organization, project=world.project, email=world.project_admin.user.email, role=Role.VIEWER,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    )  # fmt: skip

    listed = signed_in(world.project_admin.user).get(table(EnrollmentToken)).context["cl"].result_list

    assert [token.environment for token in listed] == [elsewhere]


def test_viewer_is_refused_and_the_denial_is_counted(world: World) -> None:
    made = fill(world)
    DenialCount.objects.all().delete()
    client, events = signed_in(world.viewer.user), AuditEvent.objects.count()

    answers = [
        client.post(act(made.deployment, name), {"_confirm": "yes", "comment": "no"}).status_code
        for name in ("roll_back", "pause", "resume", "abort", "approve", "deny")
    ]

    assert answers == [403] * 6
    assert Deployment.objects.get().status == "active"
    assert AuditEvent.objects.count() == events
    assert sorted(DenialCount.objects.values_list("action", "actor_display", "count")) == [
        (f"console.{name}", "viewer@acme.example", 1)
        for name in ("abort", "approve", "deny", "pause", "resume", "roll_back")
    ]
    assert set(DenialCount.objects.values_list("organization", flat=True)) == {world.organization.pk}


@pytest.mark.parametrize(
    ("who", "shut"),
    [
        (
            "viewer",
            {
                "tenancy.organizationkey",
                "tenancy.auditevent",
                "fleet.enrollmenttoken",
            },
        ),
        ("operator", {"tenancy.organizationkey", "tenancy.auditevent", "fleet.enrollmenttoken"}),
        ("project_admin", {"tenancy.organizationkey", "tenancy.auditevent"}),
        ("admin", set()),
    ],
)
def test_tables_require_the_permissions_of_the_api(world: World, who: str, shut: set[str]) -> None:
    fill(world)
    client = signed_in(getattr(world, who).user)
    asked = [
        "tenancy.organizationkey", "tenancy.auditevent", "fleet.enrollmenttoken", "procrastinate.procrastinatejob",
        "releases.deployment", "fleet.agent",
    ]  # fmt: skip

    assert {label for label in asked if client.get(table(MODELS[label])).status_code == 403} == shut


@pytest.mark.parametrize("what", ["project", "prod"])
def test_deleted_rows_are_hidden_from_superusers(world: World, what: str) -> None:
    made = fill(world)
    row = world.project if what == "project" else made.deployment.environment
    organizations.delete(row, kind="project" if what == "project" else "environment", actor=world.admin.actor)

    for user in (world.admin.user, superuser()):
        client = signed_in(user)
        assert client.get(row_page(row)).status_code == 404
        assert client.get(row_page(made.deployment)).status_code == 404
        assert list(client.get(table(Deployment)).context["cl"].result_list) == []


def test_people_see_only_their_own_tokens(world: World) -> None:
    client = signed_in(world.admin.user)

    listed = client.get(table(UserToken)).context["cl"].result_list

    assert [token.user for token in listed] == [world.admin.user]
    theirs = UserToken.objects.get(user=world.viewer.user)
    assert client.get(act(theirs, "revoke")).status_code == 404


def test_jobs_are_limited_to_own_rows(world: World, other: World) -> None:
    mine, theirs = fill(world).job, fill(other).job

    def seen(user: User) -> set[int]:
        jobs = signed_in(user).get(table(ProcrastinateJob), {"status": "failed"}).context["cl"].result_list
        return {job.pk for job in jobs}

    assert seen(world.operator.user) == {mine.pk}
    assert seen(superuser()) == {mine.pk, theirs.pk}


def test_person_who_lost_the_last_role_cannot_enter(world: World) -> None:
    client = signed_in(world.viewer.user)
    assert client.get("/admin/").status_code == 200
    Membership.objects.filter(user=world.viewer.user).delete()

    assert client.get("/admin/").headers["Location"] == "/admin/login/?next=/admin/"


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_active": False, "is_superuser": True}])
def test_inactive_account_cannot_enter(world: World, change: dict[str, bool]) -> None:
    client = signed_in(world.admin.user)
    User.objects.filter(pk=world.admin.user.pk).update(**change)

    assert client.get("/admin/").headers["Location"] == "/admin/login/?next=/admin/"


def test_person_without_a_tenant_sees_no_table(world: World) -> None:
    fill(world)
    client = signed_in(accounts.get_or_create_account("nobody@nowhere.example"))

    answers = {client.get(table(model)).headers["Location"].split("?")[0] for model in MODELS.values()}

    assert answers == {"/admin/login/"}
