"""Copies of config bundles in other environments of the project, and their missing secrets."""

from __future__ import annotations

from typing import Any

import pytest

from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle
from apps.releases.services import bundle_copies, bundles
from apps.tenancy.models import AuditEvent, Environment
from apps.tenancy.services import organizations
from byteor_cloud.ids import uuid7
from tests.races import Race
from tests.releases.test_config_bundles import FULL
from tests.worlds import World, plan

pytestmark = pytest.mark.django_db


def copy(world: World, source: Any, environment: Environment | None = None, **headers: str) -> Any:
    path = world.path(environment or world.staging, "/config-bundles")
    return world.operator.api.post(path, {"from_config_bundle_id": str(source)}, **headers)


def counts() -> tuple[int, int, int]:
    return Version.objects.count(), ConfigBundle.objects.count(), AuditEvent.objects.exclude(outcome="denied").count()


def test_successive_copies_from_dev_to_prod_keep_content_and_hashes(world: World) -> None:
    source = world.bundle(world.dev, "trades", **FULL)
    world.version(world.staging, plan(egress="elsewhere"))  # has number 1 in staging

    first = copy(world, source.pk, Idempotency_Key="copy")
    second = copy(world, first.json()["id"], world.prod)

    assert (first.status_code, second.status_code) == (201, 201), first.json()
    made, last = first.json(), second.json()
    assert {name: made[name] for name in FULL} == {name: last[name] for name in FULL} == FULL
    assert (made["name"], made["config_hash"], made["spec_hash"], made["required_capabilities"]) == (
        "trades", source.config_hash, source.version.spec_hash, source.required_capabilities,
    )  # fmt: skip
    assert (last["config_hash"], last["spec_hash"]) == (made["config_hash"], made["spec_hash"])
    assert (made["origin"], last["origin"]) == (str(source.pk), made["id"])
    version = Version.objects.get(pk=made["version_id"])
    assert (version.origin_id, version.number, version.environment) == (source.version_id, 2, world.staging)
    got = world.viewer.api.get(first["Location"])
    assert (got.json(), got["ETag"]) == (made, first["ETag"])
    event = AuditEvent.objects.get(action="config_bundle.create", resource_id=made["id"])
    assert event.changes == {
        "name": [None, "trades"], "config_hash": [None, source.config_hash], "origin": [None, str(source.pk)],
    }  # fmt: skip
    assert (event.actor_display, event.environment_id) == ("operator@acme.example", world.staging.pk)

    before = counts()
    again = copy(world, source.pk)
    replayed = copy(world, source.pk, Idempotency_Key="copy")
    direct = copy(world, source.pk, world.prod)  # prod already has this configuration

    assert [(each.status_code, each.json()["id"]) for each in (again, replayed, direct)] == [
        (200, made["id"]), (201, made["id"]), (200, last["id"]),
    ]  # fmt: skip
    assert (again.json(), replayed["Idempotent-Replayed"], counts()) == (made, "true", before)


def test_copy_reuses_version_with_same_spec(world: World) -> None:
    version = world.version()
    one, two = (world.bundle(world.dev, name, version=version, env={"N": name}) for name in ("one", "two"))
    own = world.version(world.staging)  # promoted in staging, with the same spec

    copies = [copy(world, each.pk) for each in (one, two)]

    assert [each.status_code for each in copies] == [201, 201]
    assert [each.json()["version_id"] for each in copies] == [str(own.pk)] * 2
    assert Version.objects.count() == 2


def test_secret_of_copy_is_missing_if_no_other_bundle_of_environment_refers_to_it(world: World) -> None:
    def secrets(*names: str) -> dict[str, Any]:
        return {"PLAIN": "TEXT", **{f"{name}_VARIABLE": {"secret_ref": name} for name in names}}

    source = world.bundle(world.dev, "source", env=secrets("KNOWN", "TEXT", "A", "B", "ELSEWHERE"))
    world.bundle(world.staging, "known", env=secrets("KNOWN"))
    world.bundle(world.prod, "elsewhere", env=secrets("ELSEWHERE"))

    first = copy(world, source.pk)

    assert (first.status_code, first.json()["missing_secrets"]) == (201, ["A", "B", "ELSEWHERE", "TEXT"])
    assert copy(world, source.pk).json()["missing_secrets"] == ["A", "B", "ELSEWHERE", "TEXT"]
    world.bundle(world.staging, "later", version=world.version(world.staging, plan("later")), env=secrets("A"))
    got = world.viewer.api.get(first["Location"]).json()
    assert got["missing_secrets"] == ["B", "ELSEWHERE", "TEXT"]
    assert world.viewer.api.get(world.path(rest=f"/config-bundles/{source.pk}")).json()["missing_secrets"] == []
    listed = world.viewer.api.get(world.path(world.staging, "/config-bundles")).json()["results"]
    assert [row["missing_secrets"] for row in listed] == [None] * 3


def test_unknown_or_foreign_bundles_cannot_be_copied(world: World, other: World) -> None:
    foreign = other.bundle(other.dev, "foreign")
    sibling = organizations.create_project(organization=world.organization, name="second", actor=world.admin.actor)
    place = organizations.create_environment(
        project=sibling, name="dev", posture="dev", may_loosen=True, actor=world.admin.actor
    )
    cousin = world.bundle(place, "cousin")
    gone = world.bundle(world.prod, "gone")
    organizations.delete(world.prod, kind="environment", actor=world.admin.actor)
    before = counts()

    responses = [copy(world, source) for source in (foreign.pk, cousin.pk, gone.pk, uuid7())]

    assert [response.status_code for response in responses] == [404] * 4
    assert len({(each.json()["detail"], each.json()["type"]) for each in responses}) == 1
    assert counts() == before


def test_invalid_requests_for_copies_are_refused(world: World) -> None:
    source, version = world.bundle(world.dev, "same"), world.version(world.staging)
    world.bundle(world.staging, "same", version=version, env={"OTHER": "1"})
    before = counts()
    path = world.path(world.staging, "/config-bundles")

    def refused(body: Any) -> tuple[int, list[tuple[str, str]]]:
        response = world.operator.api.post(path, body)
        errors = response.json().get("errors", ())
        return response.status_code, [(each["pointer"], each["code"]) for each in errors]

    named = {"from_config_bundle_id": str(source.pk)}
    assert refused({**named, "name": "n", "env": {}}) == (400, [("/env", "one_of"), ("/name", "one_of")])
    assert refused({**named, "version_id": str(version.pk)}) == (400, [("/version_id", "one_of")])
    assert refused({"from_config_bundle_id": "x"}) == (400, [("/from_config_bundle_id", "invalid")])
    assert refused({"from_config_bundle_id": None}) == (400, [("/from_config_bundle_id", "null")])
    assert refused({}) == (400, [("/name", "required"), ("/version_id", "required")])
    own = copy(world, source.pk, world.dev)
    assert (own.status_code, own.json()["errors"][0]["code"]) == (400, "same_environment")
    taken = copy(world, source.pk)
    assert (taken.status_code, taken.json()["type"]) == (409, "urn:byteor:problem:name_taken")
    assert world.viewer.api.post(path, named).status_code == 403
    assert counts() == before


def test_copy_is_known_bad_if_configuration_is_known_bad_in_target_environment(world: World) -> None:
    source = world.bundle(world.dev, "bad")
    bundles.mark_known_bad(world.staging, source.config_hash, reason="it failed", actor=world.admin.actor)

    copied = copy(world, source.pk)

    assert (copied.status_code, copied.json()["known_bad"]) == (201, True)
    assert world.viewer.api.get(world.path(rest=f"/config-bundles/{source.pk}")).json()["known_bad"] is False


@pytest.mark.django_db(transaction=True)
def test_racing_copies_create_one_version_and_one_bundle(world: World, concurrently: Race) -> None:
    source = world.bundle(world.dev, "raced", **FULL)

    def race() -> tuple[ConfigBundle, bool]:
        return bundle_copies.copy_config_bundle(
            environment=world.staging, from_config_bundle_id=source.pk, actor=world.operator.actor
        )

    results = concurrently(*[race] * 4)

    assert sorted(is_new for _, is_new in results) == [False, False, False, True]
    assert len({bundle.pk for bundle, _ in results}) == 1
    assert Version.objects.filter(environment=world.staging).count() == 1
    assert ConfigBundle.objects.filter(environment=world.staging).count() == 1
