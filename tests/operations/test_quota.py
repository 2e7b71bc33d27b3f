"""Tests of ``manage.py quota``."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from apps.tenancy.models import AuditEvent, OrganizationQuotas
from tests.worlds import World

pytestmark = pytest.mark.django_db


def run(*argv: str) -> str:
    out = StringIO()
    call_command("quota", *argv, stdout=out)
    return out.getvalue()


def test_quotas_are_set_cleared_and_printed(world: World) -> None:
    world.agent()
    pk, slug = str(world.organization.pk), world.organization.slug

    assert run("--org", slug).splitlines() == [
        "agents            1, no quota", "stored-bytes      0, no quota", "captures-per-day  0, no quota",
        "drafts            0, no quota",
    ]  # fmt: skip
    assert not OrganizationQuotas.objects.exists()
    run("--org", pk, "--agents", "5", "--stored-bytes", "1000", "--captures-per-day", "0", "--drafts", "7")
    printed = json.loads(run("--org", pk, "--clear", "stored_bytes", "--clear", "drafts", "--agents", "6", "--json"))

    assert printed == {
        "org_id": pk,
        "limits": {"agents": 6, "stored_bytes": None, "captures_per_day": 0, "drafts": None},
        "used": {"agents": 1, "stored_bytes": 0, "captures_per_day": 0, "drafts": 0},
    }
    assert run("--org", slug).splitlines()[:3] == [
        "agents            1 of 6", "stored-bytes      0, no quota", "captures-per-day  0 of 0",
    ]  # fmt: skip
    events = AuditEvent.objects.filter(action="organization.set_quotas", organization=world.organization)
    assert [(each.actor_display, len(each.changes)) for each in events.order_by("id")] == [
        ("system:quota", 4), ("system:quota", 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--org", "nobody", "--agents", "1"), "there is no organization with the id or slug 'nobody'"),
        (("--org", "acme", "--agents", "-1"), "agents must be from 0 to 9223372036854775807."),
        (("--org", "acme", "--drafts", str(2**63)), "drafts must be from 0 to 9223372036854775807."),
        (("--org", "acme", "--agents", "1", "--clear", "agents"), "--agents and --clear agents cannot be combined"),
        (("--org", "acme", "--agents", "many"), "argument --agents: invalid int value: 'many'"),
        (("--org", "acme", "--clear", "users"), "argument --clear: invalid choice: 'users'"),
    ],
)
def test_invalid_quota_arguments_are_reported_in_one_line_and_change_nothing(
    world: World, argv: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CommandError) as refused:
        run(*argv)

    text = str(refused.value).removeprefix("Error: ")
    assert text.startswith(message)
    assert "\n" not in text
    assert refused.value.returncode in {1, 2}
    assert not OrganizationQuotas.objects.exists()
