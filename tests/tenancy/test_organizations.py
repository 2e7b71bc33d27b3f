"""Organizations, projects and environments: names, settings and deletion."""

from __future__ import annotations

import zoneinfo
from typing import Any

import pytest

from apps.fleet.models import Agent
from apps.pipelines.models import Draft, Version
from apps.releases.models import Deployment
from apps.tenancy import policy
from apps.tenancy.api.serializers import settings as settings_serializers
from apps.tenancy.models import AuditEvent, Environment, Organization, Project
from apps.tenancy.policy import Posture
from apps.tenancy.services import organizations
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db
WINDOW = {"start": "2026-12-24T00:00:00Z", "end": "2026-12-27T00:00:00Z", "reason": "holidays"}


def org(world: World, rest: str = "") -> str:
    return f"/api/v1/orgs/{world.organization.pk}{rest}"


@pytest.mark.parametrize(
    ("posture", "differs"),
    [
        ("dev", {"approvals_required": False, "allow_self_approval": True, "replay_policy": "allowed"}),
        ("staging", {"approvals_required": False, "allow_self_approval": False, "replay_policy": "dry_run_only"}),
        ("prod", {"approvals_required": True, "allow_self_approval": False, "replay_policy": "dry_run_only"}),
    ],
)
def test_default_settings_depend_on_posture(world: World, posture: str, differs: dict[str, Any]) -> None:
    settings = world.viewer.api.get(world.path(getattr(world, posture))).json()["settings"]

    assert settings == {
        "required_approvals": 1,
        "approval_ttl_s": 3600,
        "heartbeat_interval_s": 30,
        "agent_timeout_s": 600,
        "max_in_flight_deployments": 1,
        "artifact_retention_days": 90,
        "freeze_windows": [],
        "reviewers": [],
        "replay_gate": "off",
        "replay_gate_min_fixtures": 0,
        "max_work_increase_percent": None,
        **differs,
    }


def test_environment_settings_are_merged_by_key_and_audited(world: World) -> None:
    world.admin.api.put(world.path(), {"settings": {"heartbeat_interval_s": 5, "agent_timeout_s": 50}})

    response = world.project_admin.api.put(world.path(), {"settings": {"heartbeat_interval_s": 7}})

    world.dev.refresh_from_db()
    assert response.json()["settings"]["agent_timeout_s"] == 50
    assert world.dev.settings == {"heartbeat_interval_s": 7, "agent_timeout_s": 50}
    event = AuditEvent.objects.latest("id")
    assert (event.action, event.actor_display) == ("environment.update", "project_admin@acme.example")
    assert event.changes == {
        "settings": [
            {"heartbeat_interval_s": 5, "agent_timeout_s": 50},
            {"heartbeat_interval_s": 7, "agent_timeout_s": 50},
        ]
    }


def test_new_environments_use_organization_defaults(world: World) -> None:
    defaults = {"default_environment_settings": {"heartbeat_interval_s": 9, "agent_timeout_s": 90}}
    assert world.admin.api.put(org(world), {"settings": defaults}).status_code == 200

    made = world.admin.api.post(
        org(world, f"/projects/{world.project.pk}/environments"),
        {"name": "canary", "posture": "staging", "settings": {"agent_timeout_s": 70}},
    )

    assert made.status_code == 201
    environment = Environment.objects.get(pk=made.json()["id"])
    assert environment.settings == {"heartbeat_interval_s": 9, "agent_timeout_s": 70}


LOOSER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("prod", {}, {"approvals_required": False}),
    ("prod", {"required_approvals": 2}, {"required_approvals": 1}),
    ("prod", {}, {"allow_self_approval": True}),
    ("prod", {}, {"approval_ttl_s": 3601}),
    ("prod", {}, {"replay_policy": "allowed"}),
    ("prod", {"replay_policy": "disabled"}, {"replay_policy": "dry_run_only"}),
    ("prod", {"freeze_windows": [WINDOW]}, {"freeze_windows": []}),
    ("prod", {"freeze_windows": [WINDOW]}, {"freeze_windows": [{**WINDOW, "end": "2026-12-26T00:00:00Z"}]}),
    ("staging", {"approvals_required": True}, {"approvals_required": False}),
    ("staging", {}, {"replay_policy": "allowed"}),
    ("staging", {"replay_gate": "require"}, {"replay_gate": "warn"}),
    ("prod", {"replay_gate": "warn"}, {"replay_gate": "off"}),
    ("prod", {"replay_gate_min_fixtures": 3}, {"replay_gate_min_fixtures": 2}),
    ("staging", {"max_work_increase_percent": 10}, {"max_work_increase_percent": 11}),
    ("staging", {"max_work_increase_percent": 10}, {"max_work_increase_percent": None}),
]
TIGHTER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("prod", {}, {"required_approvals": 2}),
    ("prod", {}, {"approval_ttl_s": 60}),
    ("prod", {}, {"replay_policy": "disabled"}),
    ("prod", {}, {"freeze_windows": [WINDOW]}),
    (
        "prod",
        {"max_work_increase_percent": 10},
        {"replay_gate": "require", "replay_gate_min_fixtures": 1, "max_work_increase_percent": 9},
    ),
    ("prod", {}, {"heartbeat_interval_s": 3600, "max_in_flight_deployments": 100}),
    ("staging", {}, {"approvals_required": True}),
    ("dev", {}, {"approvals_required": True}),
    ("dev", {"approvals_required": True}, {"approvals_required": False}),
]


@pytest.mark.parametrize(("posture", "before", "change"), LOOSER)
def test_only_org_admin_can_loosen_settings_of_staging_or_prod(
    world: World, posture: str, before: dict[str, Any], change: dict[str, Any]
) -> None:
    environment = getattr(world, posture)
    assert world.admin.api.put(world.path(environment), {"settings": before}).status_code == 200
    environment.refresh_from_db()
    kept = environment.settings
    events = AuditEvent.objects.count()

    refused = world.project_admin.api.put(world.path(environment), {"settings": change})

    environment.refresh_from_db()
    assert (refused.status_code, environment.settings) == (403, kept)
    assert AuditEvent.objects.count() == events
    assert world.admin.api.put(world.path(environment), {"settings": change}).status_code == 200


@pytest.mark.parametrize(("posture", "before", "change"), TIGHTER)
def test_project_admin_can_change_settings_without_loosening_staging_or_prod(
    world: World, posture: str, before: dict[str, Any], change: dict[str, Any]
) -> None:
    path = world.path(getattr(world, posture))
    assert world.admin.api.put(path, {"settings": before}).status_code == 200

    assert world.project_admin.api.put(path, {"settings": change}).status_code == 200


def test_project_admin_cannot_create_prod_environment_with_loosened_settings(world: World) -> None:
    path = org(world, f"/projects/{world.project.pk}/environments")
    body = {"name": "loose", "posture": "prod", "settings": {"approvals_required": False}}

    assert world.project_admin.api.post(path, body).status_code == 403
    assert not Environment.objects.filter(name="loose").exists()
    assert world.admin.api.post(path, body).status_code == 201


LOOSE_DEFAULTS = {"allow_self_approval": True, "approval_ttl_s": 7200, "replay_policy": "allowed"}


@pytest.mark.parametrize("posture", ["prod", "staging"])
def test_project_admin_can_create_environment_with_organization_defaults(world: World, posture: str) -> None:
    world.admin.api.put(org(world), {"settings": {"default_environment_settings": LOOSE_DEFAULTS}})
    path = org(world, f"/projects/{world.project.pk}/environments")

    plain = world.project_admin.api.post(path, {"name": "plain", "posture": posture})
    tighter = world.project_admin.api.post(
        path, {"name": "tighter", "posture": posture, "settings": {"approval_ttl_s": 60, "replay_policy": "disabled"}}
    )

    assert (plain.status_code, tighter.status_code) == (201, 201)
    assert plain.json()["settings"].items() >= LOOSE_DEFAULTS.items()


@pytest.mark.parametrize(
    ("defaults", "settings"),
    [
        (LOOSE_DEFAULTS, {"approval_ttl_s": 7201}),
        (LOOSE_DEFAULTS, {"approvals_required": False}),
        ({"approvals_required": True}, {"approvals_required": False}),
        ({"required_approvals": 3}, {"required_approvals": 2}),
        ({"freeze_windows": [WINDOW]}, {"freeze_windows": []}),
    ],
)
def test_project_admin_cannot_create_prod_environment_looser_than_defaults(
    world: World, defaults: dict[str, Any], settings: dict[str, Any]
) -> None:
    world.admin.api.put(org(world), {"settings": {"default_environment_settings": defaults}})
    path = org(world, f"/projects/{world.project.pk}/environments")
    body = {"name": "looser", "posture": "prod", "settings": settings}
    events = AuditEvent.objects.exclude(outcome="denied").count()

    assert world.project_admin.api.post(path, body).status_code == 403
    assert not Environment.objects.filter(name="looser").exists()
    assert AuditEvent.objects.exclude(outcome="denied").count() == events
    assert world.admin.api.post(path, body).status_code == 201


def test_loosened_settings_are_listed_except_in_dev() -> None:
    old = policy.default_settings(Posture.PROD)

    assert policy.loosened_settings(Posture.PROD, old, old) == []
    assert policy.loosened_settings(Posture.PROD, old, policy.default_settings(Posture.DEV)) == [
        "approvals_required",
        "allow_self_approval",
        "replay_policy",
    ]
    assert policy.loosened_settings(Posture.DEV, old, policy.default_settings(Posture.DEV)) == []


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"required_approvals": 0}, "/settings/required_approvals"),
        ({"replay_policy": "maybe"}, "/settings/replay_policy"),
        ({"heartbeat_interval": 5}, "/settings/heartbeat_interval"),
        ({"freeze_windows": [{**WINDOW, "end": WINDOW["start"]}]}, "/settings/freeze_windows/0/end"),
        ({"freeze_windows": [{**WINDOW, "time_zone": "Mars/Olympus"}]}, "/settings/freeze_windows/0/time_zone"),
        ({"freeze_windows": [{**WINDOW, "recurrence": "hourly"}]}, "/settings/freeze_windows/0/recurrence"),
        ({"freeze_windows": [{"start": WINDOW["start"]}]}, "/settings/freeze_windows/0/end"),
        ({"freeze_windows": [{**WINDOW, "start": "2026-13-01T00:00:00Z"}]}, "/settings/freeze_windows/0/start"),
        ({"freeze_windows": [{**WINDOW, "start": "1999-12-31T00:00:00Z"}]}, "/settings/freeze_windows/0/start"),
        ({"freeze_windows": [{**WINDOW, "end": "9999-12-31T23:59:59-23:59"}]}, "/settings/freeze_windows/0/end"),
        ({"freeze_windows": [{**WINDOW, "start": "0001-01-01T00:00:00+23:59"}]}, "/settings/freeze_windows/0/start"),
        ({"freeze_windows": [{**WINDOW, "start": "2026-12-24"}]}, "/settings/freeze_windows/0/start"),
        ({"freeze_windows": [{**WINDOW, "start": "2026-12-23T24:00:00Z"}]}, "/settings/freeze_windows/0/start"),
        ({"freeze_windows": [{**WINDOW, "start": 5}]}, "/settings/freeze_windows/0/start"),
        ({"freeze_windows": [{**WINDOW, "start": None}]}, "/settings/freeze_windows/0/start"),
        (
            {"freeze_windows": [{**WINDOW, "start": "2026-03-29T02:30:00", "time_zone": "Europe/Berlin"}]},
            "/settings/freeze_windows/0/start",
        ),
        ({"freeze_windows": [WINDOW] * 101}, "/settings/freeze_windows"),
    ],
)
def test_error_points_to_invalid_setting(world: World, settings: dict[str, Any], pointer: str) -> None:
    response = world.admin.api.put(world.path(), {"settings": settings})

    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == pointer
    world.dev.refresh_from_db()
    assert (world.dev.settings, world.dev.revision) == ({}, 1)


def test_posture_cannot_be_changed(world: World) -> None:
    response = world.admin.api.put(world.path(), {"posture": "prod"})

    assert (response.status_code, response.json()["errors"][0]["code"]) == (400, "immutable")
    assert world.admin.api.put(world.path(), {"posture": "dev", "name": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "again"),
    [
        ("/api/v1/orgs", {"name": "acme"}, "name_taken"),
        ("/api/v1/orgs", {"name": "Acme!"}, "slug_taken"),
        ("/projects", {"name": "trading"}, "name_taken"),
        ("/projects", {"name": "x", "slug": "trading"}, "slug_taken"),
        ("/environments", {"name": "dev", "posture": "prod"}, "name_taken"),
    ],
)
def test_names_and_slugs_are_unique_within_their_parent(
    world: World, path: str, body: dict[str, Any], again: str
) -> None:
    base = {"/projects": org(world), "/environments": org(world, f"/projects/{world.project.pk}")}.get(path, "")
    counts = [model.objects.count() for model in (Organization, Project, Environment)]

    response = world.admin.api.post(base + path, body)

    assert (response.status_code, response.json()["type"]) == (409, f"urn:byteor:problem:{again}")
    assert [model.objects.count() for model in (Organization, Project, Environment)] == counts


def test_same_name_is_allowed_under_another_parent(world: World, other: World) -> None:
    assert world.project.name == other.project.name
    made = world.admin.api.post(org(world, "/projects"), {"name": "second"}).json()["id"]

    again = world.admin.api.post(org(world, f"/projects/{made}/environments"), {"name": "dev", "posture": "dev"})

    assert again.status_code == 201


def test_slug_derived_from_name_with_underscore_is_accepted_in_update(world: World) -> None:
    made = world.admin.api.post(org(world, "/projects"), {"name": "_My_Prices"}).json()

    assert made["slug"] == "my-prices"
    again = world.admin.api.put(org(world, f"/projects/{made['id']}"), {"slug": made["slug"]})
    assert again.status_code == 200


def test_name_without_latin_letters_gets_random_slug(world: World) -> None:
    made = world.admin.api.post(org(world, "/projects"), {"name": "取引"}).json()

    assert len(made["slug"]) == 12


@pytest.mark.parametrize("kind", ["project", "environment"])
def test_deleted_project_or_environment_disappears_immediately_and_is_purged_by_worker(world: World, kind: str) -> None:
    agent, api = world.agent()
    bundle = world.bundle()
    world.deployment(bundle)
    key = world.admin.api.post(
        org(world, "/api-keys"), {"name": "ci", "role": "viewer", "project_id": str(world.project.pk)}
    )
    assert key.status_code == 201
    enrollment = world.enrollment_token()
    events = AuditEvent.objects.filter(organization=world.organization)
    before = events.count()
    path = world.path() if kind == "environment" else org(world, f"/projects/{world.project.pk}")

    assert world.project_admin.api.delete(path).status_code == 204

    assert [world.admin.api.get(p).status_code for p in (path, world.path(), world.path(rest="/agents"))] == [404] * 3
    assert world.admin.api.delete(path).status_code == 404
    assert api.get(f"/api/v1/agents/{agent.pk}").status_code == 401
    beat = {"status": "healthy", "agent_version": "0.1.0", "active": None}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", beat).status_code == 401
    assert type(api)(enrollment).post(world.path(rest="/agents"), {}).status_code == 401
    assert Agent.objects.count() == 1
    listed = world.admin.api.get(org(world, f"/projects/{world.project.pk}/environments"))
    assert listed.status_code == (404 if kind == "project" else 200)

    run_jobs()

    gone = Environment.objects.filter(pk=world.dev.pk)
    assert not gone.exists()
    for model in (Agent, Draft, Version, Deployment):
        assert not model._base_manager.filter(environment_id=world.dev.pk).exists()
    assert Environment.objects.count() == (0 if kind == "project" else 2)
    assert events.count() > before
    assert events.filter(action=f"{kind}.delete", actor_display="project_admin@acme.example").count() == 1
    assert events.filter(environment_id=world.dev.pk).exists()


def test_purge_can_be_repeated_and_keeps_environments_that_are_not_deleted(world: World) -> None:
    organizations.purge(Environment, str(world.dev.pk))
    assert Environment.objects.filter(pk=world.dev.pk).exists()
    organizations.delete(world.dev, kind="environment", actor=world.admin.actor)

    for _ in range(2):
        organizations.purge(Environment, str(world.dev.pk))

    assert {e.posture for e in Environment.objects.all()} == {"staging", "prod"}


def test_name_of_deleted_environment_can_be_reused_before_purge(world: World) -> None:
    assert world.admin.api.delete(world.path()).status_code == 204

    made = world.admin.api.post(
        org(world, f"/projects/{world.project.pk}/environments"), {"name": "dev", "posture": "dev"}
    )

    assert made.status_code == 201
    run_jobs()
    assert Environment.objects.get(name="dev").pk == Environment.objects.get(pk=made.json()["id"]).pk


def test_time_zones_are_listed_once_for_many_freeze_windows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing the time zones reads hundreds of files, which is too expensive for each window of a request."""
    listings: list[int] = []
    available = zoneinfo.available_timezones

    def list_time_zones() -> set[str]:
        listings.append(1)
        return available()

    monkeypatch.setattr(zoneinfo, "available_timezones", list_time_zones)
    settings_serializers.time_zones.cache_clear()
    windows = [{**WINDOW, "reason": f"window {number}"} for number in range(100)]

    response = world.admin.api.put(world.path(world.dev), {"settings": {"freeze_windows": windows}})

    assert response.status_code == 200
    assert len(listings) == 1
