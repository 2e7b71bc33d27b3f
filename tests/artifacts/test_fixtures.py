"""Fixtures: captures that are kept as regression tests of their pipeline."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.artifacts.models import Artifact, Fixture, Replay
from apps.artifacts.services import fixtures, replays, retention
from apps.tenancy.models import AuditEvent, Membership, Quota
from apps.tenancy.services import quotas
from byteor_cloud.ids import uuid7
from byteor_cloud.storage import blobs
from tests.artifacts.fixture_steps import RECORDS, bundle, capture, code, kept
from tests.artifacts.incidents import ingested, upload
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db
FUTURE, PAST = "2999-01-01T00:00:00Z", "2020-01-01T00:00:00Z"


def post(world: World, artifact: Artifact, **body: Any) -> Any:
    return world.operator.api.post(
        world.path(rest="/fixtures"), {"artifact_id": str(artifact.pk), "name": "cards", **body}
    )


def path(world: World, fixture: Fixture) -> str:
    return world.path(rest=f"/fixtures/{fixture.pk}")


def replayed(world: World, artifact: Artifact, **options: Any) -> Replay:
    row = replays.request(artifact, environment=artifact.environment, actor=world.operator.actor, **options)
    run_jobs()
    row.refresh_from_db()
    return row


def made_replay(artifact: Artifact, **columns: Any) -> Replay:
    """Create a replay without running it."""
    environment = columns.pop("environment", artifact.environment)
    assert artifact.version is not None
    return Replay.objects.create(
        environment=environment, artifact=artifact, version=artifact.version, requested_by="x", **columns
    )


def test_invalid_requests_for_fixtures_are_refused(world: World, other: World, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = capture(world, bundle(world, "now"))
    rejected = ingested(world, b"no archive")
    agent, api = world.agent(name="sender")
    diagnostic = Artifact.objects.get(pk=upload(api, agent, kind="diagnostic").json()["id"])
    elsewhere, foreign = (
        Artifact.objects.create(
            environment=environment, agent=agent, kind="incident_bundle", status="verified", content_hash="sha256:0",
            size_bytes=1, captured_at=timezone.now(),
        )
        for environment in (world.staging, other.dev)
    )  # fmt: skip
    artifacts = Artifact.objects.count()

    def refused(used: Artifact = artifact, **body: Any) -> tuple[int, str, str | None]:
        return code(post(world, used, **body))

    unknown = (400, "does_not_exist", "/artifact_id")
    assert refused(rejected) == refused(diagnostic) == (409, "not_readable", None)
    assert refused(elsewhere) == refused(foreign) == unknown
    assert refused(pipeline="trades") == (400, "other_pipeline", "/pipeline")
    assert refused(journal_lane="trades_in") == (400, "not_usable", "/journal_lane")
    assert refused(records=[0, 1], last_n=2) == (400, "contradiction", "/records")
    assert refused(records=[2, len(RECORDS)]) == refused(records=[2, 1]) == (400, "not_usable", "/records")
    assert refused(records=[0, 1, 2]) == (400, "max_length", "/records")
    assert refused(records=[-1, 0]) == (400, "min_value", "/records/0")
    assert refused(expires_at=PAST) == (400, "past", "/expires_at")
    assert refused(owner=str(uuid7())) == refused(owner=str(other.admin.user.pk)) == (400, "does_not_exist", "/owner")
    monkeypatch.setattr(fixtures, "MAX_FIXTURE_WORK", 2)
    assert refused() == (400, "not_usable", "/artifact_id")
    assert (Fixture.objects.count(), Artifact.objects.count()) == (0, artifacts)
    assert not AuditEvent.objects.filter(action__startswith="fixture").exists()


def test_unusable_golden_replays_are_refused(world: World, other: World, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = capture(world, bundle(world, "now"))
    another = capture(world, bundle(world, "next"), RECORDS[:1])
    golden = replayed(world, artifact)
    assert golden.status == "succeeded"

    def refused(replay: Replay | str, **body: Any) -> tuple[int, str, str | None]:
        return code(post(world, artifact, expect={"golden": str(getattr(replay, "pk", replay))}, **body))

    pointer = "/expect/golden"
    assert code(post(world, artifact, expect="golden")) == (400, "invalid", "/expect")
    assert refused("5") == (400, "invalid", pointer)
    assert refused(str(uuid7())) == (400, "does_not_exist", pointer)
    assert refused(made_replay(artifact, environment=world.staging)) == (400, "does_not_exist", pointer)
    assert refused(made_replay(another)) == (400, "other_artifact", pointer)
    assert refused(golden, last_n=1) == refused(golden, journal_lane="quotes_in") == (400, "other_selection", pointer)
    assert refused(golden, records=[0, 1]) == (400, "other_selection", pointer)
    for unfinished in (
        {"status": "queued"},
        {"status": "failed", "error_code": "cancelled"},
        {"status": "failed", "error_code": "limit.work"},
        {"status": "denied"},
    ):
        assert refused(made_replay(artifact, **unfinished)) == (409, "fixture.golden_without_result", None)
    monkeypatch.setattr(fixtures, "MAX_GOLDEN_BYTES", 100)
    assert refused(golden) == (400, "too_large", pointer)
    Replay.objects.filter(pk=golden.pk).update(result={**(golden.result or {}), "egress": {}})
    assert refused(golden) == (409, "fixture.golden_changed", None)
    assert not Fixture.objects.exists()


def test_fixture_with_taken_name_or_beyond_limit_of_live_fixtures_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixtures, "MAX_FIXTURES", 2)
    first = kept(world, capture(world, bundle(world, "now")))
    checked = fixtures.Checked("quotes", golden=None, reduced=None)
    kept(world, first.artifact, "more", checked=checked)

    monkeypatch.setattr(blobs, "put_file", lambda *_: pytest.fail("stored a blob that no row refers to"))
    assert code(post(world, first.artifact, name="third", records=[0, 1])) == (409, "fixture_limit", None)
    Fixture.objects.filter(pk=first.pk).update(expires_at=timezone.now())
    assert code(post(world, first.artifact, records=[0, 1])) == (409, "name_taken", None)
    quotas.set_quotas(world.organization, {Quota.STORED_BYTES: 1}, actor=world.admin.actor)
    assert code(post(world, first.artifact, name="third", records=[0, 1])) == (409, "quota.stored_bytes", None)
    kept(world, first.artifact, "third", checked=checked)
    revived = world.project_admin.api.put(path(world, first), {"expires_at": None})
    assert code(revived) == (409, "fixture_limit", None)
    assert code(world.operator.api.put(path(world, first), {"name": "more"})) == (409, "name_taken", None)
    first.refresh_from_db()
    assert (first.name, first.is_expired, Fixture.objects.count()) == ("cards", True, 3)


def test_fixture_of_some_records_has_new_artifact_that_names_its_origin(world: World) -> None:
    artifact = capture(world, bundle(world, "now"))

    response = post(world, artifact, records=[1, 2], note="two of four", expires_at=FUTURE)

    assert response.status_code == 201, response.json()
    shown = response.json()
    reduced = world.viewer.api.get(world.path(rest=f"/artifacts/{shown['artifact_id']}")).json()
    assert reduced["origin"] == {"artifact_id": str(artifact.pk), "records": [1, 2]}
    assert (reduced["status"], reduced["kind"]) == ("verified", "incident_bundle")
    assert world.viewer.api.get(response["Location"]).json() == shown
    expected = {
        "pipeline": "quotes", "name": "cards", "owner": str(world.operator.user.pk), "note": "two of four",
        "journal_lane": None, "last_n": None, "records": [1, 2], "expires_at": FUTURE, "is_expired": False,
        "expect": "same", "created_by": world.operator.user.email,
    }  # fmt: skip
    assert {name: shown[name] for name in expected} == expected
    row = replayed(world, Artifact.objects.get(pk=reduced["id"]))
    assert row.result is not None
    assert (row.status, row.result["egress"]["quotes_out"]["records"]) == ("succeeded", 2)

    again = post(world, artifact, name="again", records=[1, 2])

    assert (again.status_code, again.json()["artifact_id"]) == (201, reduced["id"])
    found = {
        query: len(world.viewer.api.get(world.path(rest=f"/fixtures?{query}")).json()["results"])
        for query in (
            "pipeline=quotes", "pipeline=trades", f"artifact_id={reduced['id']}", f"artifact_id={artifact.pk}",
            f"owner={world.operator.user.pk}", f"owner={world.admin.user.pk}", "name=agai", "expired=true",
            "expired=false",
        )
    }  # fmt: skip
    assert list(found.values()) == [2, 0, 2, 0, 2, 0, 1, 0, 2]


def test_repeated_request_for_fixture_returns_first_response_without_another_replay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = capture(world, bundle(world, "now"))
    body = {"artifact_id": str(artifact.pk), "name": "cards"}
    first = world.operator.api.post(world.path(rest="/fixtures"), body, Idempotency_Key="k")
    monkeypatch.setattr(fixtures, "check", lambda *_, **__: pytest.fail("replayed again"))

    again = world.operator.api.post(world.path(rest="/fixtures"), body, Idempotency_Key="k")

    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert again["Idempotent-Replayed"] == "true"
    reused = world.operator.api.post(world.path(rest="/fixtures"), {**body, "name": "b"}, Idempotency_Key="k")
    assert code(reused) == (409, "idempotency_key_reused", None)


def test_expectation_and_expiry_of_fixture_are_updated_only_by_managers(world: World) -> None:
    fixture = kept(world, capture(world, bundle(world, "now")), owner=world.reviewer.user)
    operator, manager, url = world.operator.api, world.project_admin.api, path(world, fixture)
    golden = str(replayed(world, fixture.artifact).pk)
    Membership.objects.filter(user=world.reviewer.user).delete()
    whole = operator.get(url)

    # An operator may send all fields back, even if the owner has left.
    response = operator.put(url, {**whole.json(), "name": "renamed", "note": "why"}, If_Match=whole["ETag"])
    assert (response.status_code, response.json()["name"], response.json()["note"]) == (200, "renamed", "why")
    assert operator.put(url, {"note": "late"}, If_Match=whole["ETag"]).status_code == 412
    for body in ({"expires_at": FUTURE}, {"expect": {"golden": golden}}):
        assert code(operator.put(url, body)) == (403, "forbidden", None)
    assert operator.delete(url).status_code == 403
    assert code(manager.put(url, {"expires_at": PAST})) == (400, "past", "/expires_at")
    assert code(manager.put(url, {"owner": str(uuid7())})) == (400, "does_not_exist", "/owner")
    assert code(manager.put(url, {"expect": {"golden": str(uuid7())}})) == (400, "does_not_exist", "/expect/golden")
    assert operator.get(url).json()["expect"] == "same"

    changed = manager.put(url, {"expect": {"golden": golden}, "expires_at": FUTURE, "owner": None})

    assert changed.status_code == 200, changed.json()
    assert (changed.json()["expect"], changed.json()["owner"]) == ({"golden": golden}, None)
    fixture.refresh_from_db()
    assert fixture.golden["result"]["egress"]["quotes_out"]["records"] == len(RECORDS)
    event = AuditEvent.objects.filter(action="fixture.update").latest("id")
    assert event.changes == {
        "expires_at": [None, FUTURE],
        "golden_replay_id": [None, golden],
        "owner_id": [str(world.reviewer.user.pk), None],
    }
    Replay.objects.all().delete()  # the result was copied
    sent_back = {"expect": {"golden": golden}, "expires_at": FUTURE, "name": "again"}
    assert operator.put(url, sent_back).status_code == 200
    assert manager.put(url, {"expect": "same"}).json()["expect"] == "same"
    fixture.refresh_from_db()
    assert fixture.golden is None

    assert manager.delete(url, If_Match=changed["ETag"]).status_code == 412
    assert manager.delete(url).status_code == 204
    assert manager.get(url).status_code == 404
    assert Artifact.objects.filter(pk=fixture.artifact_id).exists()


def test_expired_fixture_can_be_edited_and_is_listed_as_expired(world: World) -> None:
    fixture = kept(world, capture(world, bundle(world, "now")), expires_at=timezone.now() + timedelta(days=1))
    before = world.operator.api.get(path(world, fixture))
    expired = timezone.now()
    Fixture.objects.filter(pk=fixture.pk).update(expires_at=expired)
    shown = world.operator.api.get(path(world, fixture))
    assert (before.json()["is_expired"], shown.json()["is_expired"]) == (False, True)

    response = world.operator.api.put(path(world, fixture), {**shown.json(), "note": "old"}, If_Match=shown["ETag"])

    assert (response.status_code, response.json()["note"]) == (200, "old")
    listed = world.viewer.api.get(world.path(rest="/fixtures?expired=true")).json()["results"]
    assert [each["id"] for each in listed] == [str(fixture.pk)]


def test_retention_keeps_artifact_until_its_fixture_expires(world: World) -> None:
    artifact = capture(world, bundle(world, "now"))
    unused = capture(world, bundle(world, "next"), RECORDS[:1])
    fixture = kept(world, artifact, expires_at=timezone.now() + timedelta(days=200))

    assert retention.delete_old_artifacts(timezone.now() + timedelta(days=100)) == 1

    assert list(Artifact.objects.values_list("pk", flat=True)) == [artifact.pk]
    assert retention.delete_old_artifacts(timezone.now() + timedelta(days=201)) == 1
    assert not Artifact.objects.exists()
    assert not Fixture.objects.filter(pk=fixture.pk).exists()
    assert not Artifact.objects.filter(pk=unused.pk).exists()
