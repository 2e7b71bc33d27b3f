"""Config bundles: validation, config hash, immutability, known bad configurations and filters of the list."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import rfc8785
from django.db import IntegrityError, transaction

from apps.releases.models import ConfigBundle, FixtureRevision, KnownBad
from apps.releases.services import bundles
from apps.tenancy.models import AuditEvent
from tests.releases import stories
from tests.worlds import World, plan

pytestmark = pytest.mark.django_db

GUARD = {"schema": {"type": "object", "required": ["id"]}, "on_reject": "stop"}
FULL: dict[str, Any] = {
    "tuning_profile": "low-latency",
    "wait": "backoff",
    "stage_config": {"check": GUARD},
    "adapters": {"ingress": {"kind": "file", "path": "/in"}, "egress": {"kind": "kafka", "topic": "t"}},
    "env": {"REGION": "eu", "PASSWORD": {"secret_ref": "DB_PASSWORD"}},
    "snapshot": {"enabled": True, "interval_s": 60},
}


def create(world: World, **body: Any) -> Any:
    body.setdefault("name", "bundle")
    if "version_id" not in body:
        body["version_id"] = str(world.version().pk)
    return world.operator.api.post(world.path(rest="/config-bundles"), body)


def expected_hash(spec_hash: str, capabilities: list[str], **config: Any) -> str:
    document = {"spec_hash": spec_hash, "required_capabilities": capabilities, **config}
    return "sha256:" + hashlib.sha256(rfc8785.dumps(document)).hexdigest()


def test_name_and_version_suffice_to_create_config_bundle(world: World) -> None:
    version = world.version()

    created = create(world, version_id=str(version.pk))

    assert created.status_code == 201, created.json()
    body = created.json()
    defaults = {
        "tuning_profile": "default", "wait": "backoff", "stage_config": {}, "adapters": {}, "env": {},
        "snapshot": {"enabled": False},
    }  # fmt: skip
    assert {name: body[name] for name in defaults} == defaults
    assert body["required_capabilities"] == ["deploy"]
    assert body["known_bad"] is False
    assert body["spec_hash"] == version.spec_hash
    assert body["config_hash"] == expected_hash(version.spec_hash, ["deploy"], **defaults)
    got = world.viewer.api.get(world.path(rest=f"/config-bundles/{body['id']}"))
    assert got.json() == body
    assert got["ETag"] == created["ETag"]


def test_configuration_fields_are_stored_and_hashed(world: World) -> None:
    version = world.version()

    body = create(world, version_id=str(version.pk), **FULL).json()

    assert {name: body[name] for name in FULL} == FULL
    assert body["config_hash"] == expected_hash(version.spec_hash, ["deploy"], **FULL)


def test_dataguard_stage_without_parameters_is_reported_as_warning(world: World) -> None:
    stages = [
        {"id": "mask", "op": "dataguard_redact"},
        {"id": "copy", "op": "identity", "depends_on": ["mask"]},
        {"id": "check", "op": "dataguard_check", "depends_on": ["copy"]},
    ]
    version = str(world.version(world.prod, plan(stages=stages)).pk)
    path = world.path(world.prod, "/config-bundles")

    def post(name: str, **stage_config: Any) -> Any:
        body = {"name": name, "version_id": version, "stage_config": stage_config}
        return world.operator.api.post(path, body).json()

    def warning(stage: str, op: str) -> dict[str, str]:
        detail = f"The stage {stage} ({op}) has no parameters. It lets every record pass unchanged."
        return {"code": "no_parameters", "pointer": f"/stage_config/{stage}", "detail": detail}

    complete = post("complete", mask={"rules": []}, check=GUARD)
    partial = post("partial", mask={}, check=GUARD)
    empty = post("empty")

    assert complete["warnings"] == []
    assert partial["warnings"] == [warning("mask", "dataguard_redact")]
    assert empty["warnings"] == [warning("mask", "dataguard_redact"), warning("check", "dataguard_check")]
    assert world.viewer.api.get(f"{path}/{empty['id']}").json()["warnings"] == empty["warnings"]
    assert [each["warnings"] for each in world.viewer.api.get(path).json()["results"]] == [None] * 3

    world.agent(world.prod)
    deployment = world.deployment(ConfigBundle.objects.get(pk=partial["id"]))
    approvals = world.path(world.prod, "/approvals")
    shown = world.viewer.api.get(f"{approvals}/{deployment.approval_id}").json()
    decision = {"deployment_id": str(deployment.pk), "decision": "approve"}
    assert shown["warnings"] == world.reviewer.api.post(approvals, decision).json()["warnings"] == partial["warnings"]
    assert world.viewer.api.get(approvals).json()["results"][0]["warnings"] is None


@pytest.mark.parametrize(
    ("profile", "wait"), [("default", "backoff"), ("low-latency", "spin"), ("isolated-core", "spin")]
)
def test_wait_strategy_defaults_to_value_of_tuning_profile(world: World, profile: str, wait: str) -> None:
    assert create(world, tuning_profile=profile).json()["wait"] == wait


def test_config_hash_covers_spec_and_configuration_but_not_name(world: World) -> None:
    version = str(world.version().pk)
    same = [create(world, name=name, version_id=version, **FULL).json()["config_hash"] for name in ("a", "b")]
    other_version = str(world.version(content=plan(egress="elsewhere")).pk)
    variants: list[dict[str, Any]] = [
        {"tuning_profile": "isolated-core"}, {"wait": "spin"}, {"stage_config": {}}, {"adapters": {}},
        {"env": {"REGION": "us"}}, {"snapshot": {"enabled": False}}, {"version_id": other_version},
    ]  # fmt: skip

    hashes = {
        create(world, name=f"v{number}", **({"version_id": version} | FULL | variant)).json()["config_hash"]
        for number, variant in enumerate(variants)
    }

    assert same[0] == same[1]
    assert len(hashes - {same[0]}) == len(variants)


def test_side_effects_add_required_capabilities(world: World) -> None:
    stages = [
        {"id": "notify", "op": "http_post:http://127.0.0.1:9000/hook"},
        {"id": "run", "op": "exec:/bin/true|a", "depends_on": ["notify"]},
    ]
    version = world.version(content=plan(stages=stages))

    body = create(world, version_id=str(version.pk)).json()

    assert body["required_capabilities"] == ["deploy", "side_effect:exec", "side_effect:http_post"]


SECRETS = ["-----BEGIN PRIVATE KEY-----\nabc", "x -----BEGIN RSA PRIVATE KEY----- y", "bor_agt_" + "a" * 49]


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"name": ""}, "/name", "blank"),
        ({"name": "a\nb"}, "/name", "character"),
        ({"version_id": "nonsense"}, "/version_id", "invalid"),
        ({"version_id": "01890000-0000-7000-8000-000000000000"}, "/version_id", "does_not_exist"),
        ({"tuning_profile": "warp"}, "/tuning_profile", "invalid_choice"),
        ({"wait": "sleep"}, "/wait", "invalid_choice"),
        ({"stage_config": []}, "/stage_config", "not_a_dict"),
        ({"stage_config": {"nobody": {}}}, "/stage_config/nobody", "unknown_stage"),
        ({"stage_config": {"a/b~c": {}}}, "/stage_config/a~1b~0c", "unknown_stage"),
        ({"stage_config": {"check": 1}}, "/stage_config/check", "invalid"),
        ({"stage_config": {"check": {"on_reject": "drop"}}}, "/stage_config/check/schema", "params.required"),
        (
            {"stage_config": {"check": {"schema": {}, "on_reject": "shrug"}}},
            "/stage_config/check/on_reject", "params.choice",
        ),
        ({"stage_config": {"check": {"schema": {}, "x": 1}}}, "/stage_config/check/x", "params.unknown"),
        ({"adapters": {"ingress": {"kind": "pigeon"}}}, "/adapters/ingress/kind", "invalid_choice"),
        ({"adapters": {"ingress": {}}}, "/adapters/ingress/kind", "invalid_choice"),
        ({"adapters": {"sideways": {"kind": "file"}}}, "/adapters/sideways", "unknown_field"),
        ({"env": {"lower": "x"}}, "/env/lower", "invalid"),
        ({"env": {"A": 1}}, "/env/A", "invalid"),
        ({"env": {"A": {"secret_ref": "B", "more": 1}}}, "/env/A", "invalid"),
        ({"env": {"A": {"secret_ref": "b c"}}}, "/env/A", "invalid"),
        ({"snapshot": {"enabled": True, "interval_s": 0}}, "/snapshot/interval_s", "min_value"),
        ({"snapshot": {"every": 1}}, "/snapshot/every", "unknown_field"),
        ({"stage_confg": {}}, "/stage_confg", "unknown_field"),
        *[({"env": {"A": secret}}, "/env/A", "secret") for secret in SECRETS],
        ({"stage_config": {"decode": {"deep": [{"er": SECRETS[0]}]}}}, "/stage_config/decode/deep/0/er", "secret"),
        ({"stage_config": {"decode": {"a/b": SECRETS[0]}}}, "/stage_config/decode/a~1b", "secret"),
        ({"adapters": {"egress": {"kind": "s3", "key": SECRETS[2]}}}, "/adapters/egress/key", "secret"),
    ],
)  # fmt: skip
def test_invalid_config_bundle_fields_are_refused(world: World, body: dict[str, Any], pointer: str, code: str) -> None:
    response = create(world, **body)

    assert response.status_code == 400, response.json()
    assert [(error["pointer"], error["code"]) for error in response.json()["errors"]] == [(pointer, code)]
    assert not any(secret in response.content.decode() for secret in SECRETS)
    assert ConfigBundle.objects.count() == 0


def test_errors_of_stages_and_secrets_are_reported_together(world: World) -> None:
    response = create(world, stage_config={"nobody": {}, "check": {"on_reject": "drop"}}, env={"KEY": SECRETS[0]})

    assert sorted(error["pointer"] for error in response.json()["errors"]) == [
        "/env/KEY", "/stage_config/check/schema", "/stage_config/nobody",
    ]  # fmt: skip


def test_numbers_without_canonical_form_are_refused(world: World) -> None:
    response = create(world, stage_config={"decode": {"n": 2**60}})

    assert (response.status_code, response.json()["type"]) == (400, "urn:byteor:problem:invalid")
    assert ConfigBundle.objects.count() == 0


def test_version_of_another_environment_is_refused(world: World) -> None:
    foreign = world.version(world.staging)

    response = create(world, version_id=str(foreign.pk))

    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == "/version_id"
    assert ConfigBundle.objects.count() == 0


def test_config_bundle_name_is_unique_in_environment(world: World) -> None:
    version = str(world.version().pk)
    assert create(world, name="same", version_id=version).status_code == 201

    again = create(world, name="same", version_id=version)

    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:name_taken")
    assert ConfigBundle.objects.count() == 1


def test_database_refuses_updates_of_config_bundles(world: World) -> None:
    bundle = world.bundle()

    with pytest.raises(IntegrityError, match="immutable"), transaction.atomic():
        ConfigBundle.objects.filter(pk=bundle.pk).update(wait="spin")

    bundle.refresh_from_db()
    assert bundle.wait == "backoff"


def test_clearing_known_bad_configuration_requires_permission_and_reason(world: World) -> None:
    bundle = world.bundle()
    bundles.mark_known_bad(world.dev, bundle.config_hash, reason="threshold: 1 of 1 failed", actor=world.admin.actor)
    FixtureRevision.objects.create(environment=world.dev, pipeline=bundle.version.name, revision=8)
    path = world.path(rest=f"/config-bundles/{bundle.pk}")
    assert world.viewer.api.get(path).json()["known_bad"] is True

    without = world.operator.api.post(f"{path}/clear", {})
    by_viewer = world.viewer.api.post(f"{path}/clear", {"reason": "mine"})

    assert (without.status_code, by_viewer.status_code) == (400, 403)
    assert KnownBad.objects.count() == 1

    cleared = world.operator.api.post(f"{path}/clear", {"reason": "the node was at fault"})

    assert (cleared.status_code, cleared.json()["known_bad"]) == (200, False)
    assert FixtureRevision.objects.get().revision == 9  # earlier regressions are outdated now
    event = AuditEvent.objects.get(action="config.clear")
    assert (event.resource_id, event.changes) == (bundle.config_hash, {"reason": [None, "the node was at fault"]})
    assert world.operator.api.post(f"{path}/clear", {"reason": "again"}).status_code == 409
    assert AuditEvent.objects.filter(action="config.clear").count() == 1


def test_config_bundles_can_be_filtered_by_name_version_and_hash(world: World) -> None:
    first, second = stories.bundles(world, 2)
    path = world.path(rest="/config-bundles")

    def found(query: str) -> list[str]:
        return [row["id"] for row in world.viewer.api.get(f"{path}?{query}").json()["results"]]

    assert found("") == [str(second.pk), str(first.pk)]
    assert found("name=DLE-1") == [str(second.pk)]
    assert found(f"config_hash={first.config_hash}") == [str(first.pk)]
    assert found(f"version_id={first.version_id}") == [str(second.pk), str(first.pk)]


def test_invalid_allowlist_is_refused(world: World) -> None:
    stages = [
        {"id": "notify", "op": "http_post:http://127.0.0.1:9000/hook"},
        {"id": "run", "op": "exec:/bin/true", "depends_on": ["notify"]},
    ]
    version = str(world.version(content=plan("effects", stages=stages)).pk)
    lists = {"notify": ["https://x.example/a", "ftp://x", 5], "run": "/bin/true"}

    response = create(world, version_id=version, stage_config={k: {"allowlist": v} for k, v in lists.items()})

    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == [
        "/stage_config/notify/allowlist/1",
        "/stage_config/notify/allowlist/2",
        "/stage_config/run/allowlist",
    ]
    assert not ConfigBundle.objects.exists()
    good = {"notify": {"allowlist": ["http://127.0.0.1:9000/hook"]}, "run": {"allowlist": ["/bin/true"]}}
    assert create(world, version_id=version, stage_config=good).status_code == 201
