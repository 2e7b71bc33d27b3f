"""``ETag``, ``If-None-Match`` and ``If-Match``. The revision is compared under the row's lock."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.tenancy.models import AuditEvent, Environment, Project
from apps.tenancy.services import revisions
from tests.races import Race
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db


def project(world: World) -> str:
    return f"/api/v1/orgs/{world.organization.pk}/projects/{world.project.pk}"


def test_strong_etag_changes_with_resource(world: World) -> None:
    first = world.admin.api.get(project(world))
    same = world.viewer.api.get(project(world))
    edited = world.admin.api.put(project(world), {"name": "markets"})

    assert re.fullmatch(r'"1\.[0-9a-f]{32}"', first["ETag"])
    assert same["ETag"] == first["ETag"]
    assert edited["ETag"].startswith('"2.')
    assert world.admin.api.get(project(world))["ETag"] == edited["ETag"]


def test_edit_without_changes_keeps_revision(world: World) -> None:
    first = world.admin.api.get(project(world))
    events = AuditEvent.objects.count()

    same = world.admin.api.put(project(world), {"name": "trading"})

    assert (same.status_code, same["ETag"]) == (200, first["ETag"])
    assert AuditEvent.objects.count() == events


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', "*"])
def test_unchanged_resource_returns_304_for_matching_if_none_match(world: World, form: str) -> None:
    tag = world.viewer.api.get(project(world))["ETag"]

    response = world.viewer.api.get(project(world), If_None_Match=form.format(tag))

    assert (response.status_code, response.content, response["ETag"]) == (304, b"", tag)
    assert "Content-Type" not in response


def test_changed_resource_returns_200_for_outdated_if_none_match(world: World) -> None:
    tag = world.viewer.api.get(project(world))["ETag"]
    world.admin.api.put(project(world), {"name": "markets"})

    response = world.viewer.api.get(project(world), If_None_Match=tag)

    assert (response.status_code, response.json()["name"]) == (200, "markets")


@pytest.mark.parametrize("rest", ["/versions/{}/spec.kv", "/versions/{}"])
def test_versions_and_specs_return_304_for_matching_etag(world: World, rest: str) -> None:
    path = world.path(rest=rest.format(world.version().pk))
    tag = world.viewer.api.get(path)["ETag"]

    assert world.viewer.api.get(path, If_None_Match=tag).status_code == 304


def test_edit_with_outdated_etag_returns_412(world: World) -> None:
    tag = world.admin.api.get(project(world))["ETag"]
    first = world.admin.api.put(project(world), {"name": "markets"}, If_Match=tag)

    late = world.admin.api.put(project(world), {"name": "prices"}, If_Match=tag)

    assert (first.status_code, late.status_code) == (200, 412)
    assert late.json()["type"] == "urn:byteor:problem:precondition_failed"
    world.project.refresh_from_db()
    assert (world.project.name, world.project.revision) == ("markets", 2)


@pytest.mark.parametrize(
    "tag", ['"1"', "1.x", '"x.y"', 'W/"1.{}"', '"²."', '"' + "9" * 5000 + '."', "''", '"1.{}", "2.{}"']
)
def test_invalid_or_different_etag_returns_412_on_edit(world: World, tag: str) -> None:
    response = world.admin.api.put(project(world), {"name": "x"}, If_Match=tag.format("0" * 32, "0" * 32))

    assert response.status_code == 412
    world.project.refresh_from_db()
    assert (world.project.name, world.project.revision) == ("trading", 1)


@pytest.mark.parametrize("form", ["{}", '"1.x", {}', '{},"7.y"', ' {} , W/"z"'])
def test_edit_is_accepted_if_one_etag_in_list_matches(world: World, form: str) -> None:
    tag = world.admin.api.get(project(world))["ETag"]

    assert world.admin.api.put(project(world), {"name": "x"}, If_Match=form.format(tag)).status_code == 200


@pytest.mark.parametrize("spoil", [lambda tag: "W/" + tag, lambda tag: tag[:-2] + '0"', lambda tag: tag[:3] + '"'])
def test_weak_or_altered_etag_in_if_match_returns_412(world: World, spoil: Callable[[str], str]) -> None:
    tag = world.admin.api.get(project(world))["ETag"]
    other = spoil(tag) if spoil(tag) != tag else tag[:-2] + '1"'

    response = world.admin.api.put(project(world), {"name": "x"}, If_Match=other)

    assert response.status_code == 412
    world.project.refresh_from_db()
    assert (world.project.name, world.project.revision) == ("trading", 1)


def test_if_match_wildcard_matches_any_etag(world: World) -> None:
    assert world.admin.api.put(project(world), {"name": "x"}, If_Match="*").status_code == 200


def edits(world: World) -> dict[str, tuple[str, dict[str, Any]]]:
    agent, _ = world.agent()
    org = f"/api/v1/orgs/{world.organization.pk}"
    draft = world.operator.api.post(world.path(rest="/drafts"), {"name": "d", "plan": {}}).json()["id"]
    return {
        "organization": (org, {"name": "x"}),
        "project": (project(world), {"name": "x"}),
        "environment": (world.path(), {"name": "x"}),
        "draft": (world.path(rest=f"/drafts/{draft}"), {"name": "x"}),
        "member": (f"{org}/members/{world.viewer.user.pk}", {"role": "operator"}),
        "agent": (world.path(rest=f"/agents/{agent.pk}"), {"name": "x"}),
    }


@pytest.mark.parametrize("kind", ["organization", "project", "environment", "draft", "member", "agent"])
def test_edits_lock_their_row_before_writing(world: World, kind: str) -> None:
    path, body = edits(world)[kind]
    method = "PATCH" if kind == "agent" else "PUT"
    stale = world.admin.api(method, path, body, If_Match=f'"7.{"0" * 32}"')
    assert stale.status_code == 412
    current = world.admin.api(method, path, {})["ETag"]  # this edit changes nothing

    with CaptureQueriesContext(connection) as captured:
        assert world.admin.api(method, path, body, If_Match=current).status_code == 200

    written = next(i for i, q in enumerate(captured) if q["sql"].startswith("UPDATE") and "revision" in q["sql"])
    table = re.match(r'UPDATE "(\w+)"', captured[written]["sql"])
    assert table is not None
    locks = [q["sql"] for q in captured.captured_queries[:written] if "FOR NO KEY UPDATE" in q["sql"]]
    assert any(f'FROM "{table[1]}"' in sql for sql in locks)


@pytest.mark.parametrize("kind", ["organization", "project", "environment", "draft", "member", "agent"])
def test_delete_with_outdated_etag_is_refused_and_organizations_cannot_be_deleted(world: World, kind: str) -> None:
    path, _ = edits(world)[kind]

    response = world.admin.api.delete(path, If_Match=f'"7.{"0" * 32}"')

    assert response.status_code == (405 if kind == "organization" else 412)


@pytest.mark.django_db(transaction=True)
def test_only_one_of_concurrent_edits_with_same_etag_succeeds(
    concurrently: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("acme")
    tag = world.admin.api.get(project(world))["ETag"]
    events = AuditEvent.objects.count()
    both_have_read = threading.Barrier(2)
    real: Callable[..., Any] = revisions.lock_revision

    def together(*args: Any) -> Any:
        both_have_read.wait(timeout=10)
        return real(*args)

    monkeypatch.setattr(revisions, "lock_revision", together)
    responses = concurrently(
        *[lambda n=n: Api(world.admin.api.token).put(project(world), {"name": n}, If_Match=tag) for n in ("a", "b")]
    )

    assert sorted(a.status_code for a in responses) == [200, 412]
    winner = next(a for a in responses if a.status_code == 200).json()["name"]
    saved = Project.objects.get(pk=world.project.pk)
    assert (saved.name, saved.revision) == (winner, 2)
    assert AuditEvent.objects.count() == events + 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_edits_of_different_settings_are_all_kept(concurrently: Race) -> None:
    world = World("acme")
    changes = [{"heartbeat_interval_s": 7}, {"agent_timeout_s": 77}, {"artifact_retention_days": 777}]

    responses = concurrently(
        *[lambda c=c: Api(world.admin.api.token).put(world.path(), {"settings": c}) for c in changes]
    )

    assert [a.status_code for a in responses] == [200] * 3
    saved = Environment.objects.get(pk=world.dev.pk)
    assert (saved.settings, saved.revision) == ({**changes[0], **changes[1], **changes[2]}, 4)
