"""Isolation in the console, in addition to ``test_access.py``: denials, deleted rows, and people without access."""

from __future__ import annotations

import pytest
from django.contrib.contenttypes.models import ContentType

from apps.releases.models import Deployment
from apps.tenancy.models import AuditEvent, DenialCount, Membership, User
from apps.tenancy.services import organizations
from tests.browser.confirmed import YES
from tests.browser.filled import act, fill, row_page, signed_in, superuser, table
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_redirect_url_does_not_reveal_whether_row_of_another_tenant_exists(world: World, other: World) -> None:
    made = fill(world)
    kind = ContentType.objects.get_for_model(Deployment)

    client = signed_in(other.admin.user)
    mine, nobodys = (
        client.get(f"/admin/r/{kind.pk}/{pk}/") for pk in (made.deployment.pk, "00000000-0000-0000-0000-000000000000")
    )
    assert mine.status_code == nobodys.status_code == 404
    assert mine.context["text"] == nobodys.context["text"]


def test_refused_acts_of_viewer_are_counted(world: World) -> None:
    made = fill(world)
    DenialCount.objects.all().delete()
    client, events = signed_in(world.viewer.user), AuditEvent.objects.count()

    answers = [
        client.post(act(made.deployment, name), {**YES, "comment": "no"}).status_code
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


@pytest.mark.parametrize("what", ["project", "prod"])
def test_deleted_rows_are_hidden_from_admins_and_superusers(world: World, what: str) -> None:
    made = fill(world)
    row = world.project if what == "project" else made.deployment.environment
    organizations.delete(row, kind="project" if what == "project" else "environment", actor=world.admin.actor)

    for user in (world.admin.user, superuser()):
        client = signed_in(user)
        assert client.get(row_page(row)).status_code == 404
        assert client.get(row_page(made.deployment)).status_code == 404
        assert list(client.get(table(Deployment)).context["cl"].result_list) == []


def test_person_who_lost_last_role_cannot_enter(world: World) -> None:
    client = signed_in(world.viewer.user)
    assert client.get("/admin/").status_code == 200
    Membership.objects.filter(user=world.viewer.user).delete()

    assert client.get("/admin/").headers["Location"] == "/admin/login/?next=/admin/"


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_active": False, "is_superuser": True}])
def test_inactive_account_cannot_enter(world: World, change: dict[str, bool]) -> None:
    client = signed_in(world.admin.user)
    User.objects.filter(pk=world.admin.user.pk).update(**change)

    assert client.get("/admin/").headers["Location"] == "/admin/login/?next=/admin/"
