"""Dry runs: exact results, divergences, the choice of version and parameters, and refused requests."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.jobs import RunReplay
from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import children, replay_runs, uploads
from apps.artifacts.tasks import replay as replay_job
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud.ids import uuid7
from byteor_cloud.worker.jobs import KINDS, Claim, GivenUp
from tests.artifacts import incidents
from tests.artifacts.incidents import PAYLOADS, digest_of, frames, incident, ingested, journal
from tests.releases import stories
from tests.worlds import Api, World, plan, run_jobs

pytestmark = pytest.mark.django_db

IDENTITY = plan(stages=[{"id": "copy", "op": "identity"}])
CHECK = {"check": {"schema": {"type": "object", "required": ["id"]}}}
EVERYTHING = list(enumerate(PAYLOADS, 1))
KEPT = [EVERYTHING[0], EVERYTHING[2]]


def request_replay(world: World, artifact: Artifact, api: Api | None = None, **body: Any) -> Any:
    path = world.path(artifact.environment, f"/artifacts/{artifact.pk}/replay")
    return (api or world.operator.api).post(path, body)


def replayed(world: World, artifact: Artifact, **body: Any) -> Replay:
    response = request_replay(world, artifact, **body)
    assert response.status_code == 202, response.json()
    run_jobs()
    return Replay.objects.get(pk=response.json()["id"])


def egress(*outputs: tuple[int, bytes]) -> dict[str, Any]:
    return {"quotes_out": {"records": len(outputs), "sha256": digest_of(*outputs)}}


FAITHFUL: dict[str, Any] = {"divergence": None, "reproduced": None, "notes": []}


def counts(records: int, out: int | None = None, dropped: int = 0, errors: int = 0) -> dict[str, Any]:
    """Return the counters of a stage. ``dropped`` records violated the schema, the first of them with sequence 2."""
    drops = {"schema": {"count": dropped, "first_sequence": 2}} if dropped else {}
    return {
        "in": records, "out": records if out is None else out, "dropped": dropped, "errors": errors, "drops": drops,
    }  # fmt: skip


def test_identity_replay_reproduces_its_input(world: World) -> None:
    version = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv, expected=frames(*EVERYTHING)))

    requested = request_replay(world, artifact)

    assert (requested.status_code, requested.json()["status"], requested.json()["mode"]) == (202, "queued", "dry_run")
    assert requested["Location"] == world.path(rest=f"/replays/{requested.json()['id']}")
    run_jobs()
    body = world.viewer.api.get(requested["Location"]).json()
    assert (body["status"], body["error"], body["warnings"]) == ("succeeded", None, [])
    assert (body["artifact_id"], body["version_id"]) == (str(artifact.pk), str(version.pk))
    assert body["result"] == {"egress": egress(*EVERYTHING), "stages": {"copy": counts(3)}, **FAITHFUL}
    assert body["audit"] == {
        "audit_v": 1, "created_unix_ms": body["audit"]["created_unix_ms"],
        "bundle_dir": f"artifacts/{artifact.pk}", "spec_sha256": version.spec_hash,
        "input": {
            "journal_lane": "quotes_in", "journal_path": "journal/quotes_in.bin", "last_n": None,
            "scanned_records": 3, "selected_bytes": sum(map(len, PAYLOADS)),
            "sample_sha256": ["sha256:" + hashlib.sha256(payload).hexdigest() for payload in PAYLOADS],
        },
        "policy": {"env": "dev", "approval_provided": False, "mode": "dry_run"},
        "actions": [],
    }  # fmt: skip
    assert body["started_at"] <= body["finished_at"]
    actions = AuditEvent.objects.filter(resource_id=body["id"]).order_by("id").values_list("action", flat=True)
    assert list(actions) == ["replay.request", "replay.start", "replay.succeed"]


def test_dataguard_check_drops_nonconforming_records_by_default(world: World) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv, stage_config=CHECK))

    result = replayed(world, artifact).result

    assert result == {
        "egress": egress(*KEPT), "stages": {"decode": counts(3), "check": counts(3, 2, 1)}, **FAITHFUL,
    }  # fmt: skip


def test_redaction_writes_canonical_json(world: World) -> None:
    stages = [{"id": "redact", "op": "dataguard_redact"}]
    version = world.version(content=plan(stages=stages))
    config = {"redact": {"rules": ["card:mask=4:2:*", "no:drop"]}}
    artifact = ingested(world, incident(version.spec_kv, stage_config=config))

    result = replayed(world, artifact).result

    outputs = [(1, b'{"card":"1234****90","id":1}'), (2, b"{}"), (3, b'{"card":"0987****21","id":3}')]
    assert (result["egress"], result["divergence"]) == (egress(*outputs), None)


def test_dataguard_fused_checks_records_before_redacting_them(world: World) -> None:
    stages = [{"id": "both", "op": "dataguard_fused"}]
    version = world.version(content=plan(stages=stages))
    config = {"both": {"schema": {"type": "object", "required": ["card"]}, "rules": ["card:drop"]}}
    artifact = ingested(world, incident(version.spec_kv, stage_config=config))

    result = replayed(world, artifact).result

    assert result["egress"] == egress((1, b'{"id":1}'), (3, b'{"id":3}'))
    assert result["stages"] == {"both": counts(3, 2, 1)}


def test_error_of_check_that_stops_replay_names_stage_and_record(world: World) -> None:
    version = world.version()
    config = {"check": {**CHECK["check"], "on_reject": "stop"}}
    artifact = ingested(world, incident(version.spec_kv, stage_config=config))

    row = replayed(world, artifact)

    assert row.status == "failed"
    assert row.error is not None
    assert "check" in row.error
    assert "2" in row.error
    assert row.result["egress"] == egress(EVERYTHING[0])
    assert row.result["stages"]["check"] == counts(2, 1, 0, 1)


def test_replay_diverges_if_output_differs_from_expected_output(world: World) -> None:
    version = world.version(content=IDENTITY)
    expected = frames(EVERYTHING[0], (2, b'{"no":"ID"}'), EVERYTHING[2])
    artifact = ingested(world, incident(version.spec_kv, expected=expected))

    row = replayed(world, artifact)

    assert (row.status, row.error) == ("diverged", None)
    assert row.result["egress"] == egress(*EVERYTHING)
    divergence = row.result["divergence"]
    assert (divergence["egress"], divergence["sequence"]) == ("quotes_out", 2)
    assert AuditEvent.objects.filter(action="replay.diverge").count() == 1


def test_last_n_option_limits_replay_to_last_records(world: World) -> None:
    version = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv, expected=frames(*EVERYTHING)))

    row = replayed(world, artifact, last_n=2)

    assert (row.status, row.last_n) == ("succeeded", 2)
    assert row.result["egress"] == egress(*EVERYTHING[1:])
    assert (row.audit["input"]["last_n"], row.audit["input"]["scanned_records"]) == (2, 3)


def test_replay_of_missing_journal_lane_fails(world: World) -> None:
    version = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv, quotes_in=journal(), other=journal([b"x"])))

    missing = replayed(world, artifact, journal_lane="third")

    assert missing.status == "failed"
    assert missing.error == "the bundle has no journal of lane 'third'; its journals are: other, quotes_in"


def test_unprintable_characters_in_replay_error_are_replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv))

    run_in_child = children.run_in_child

    def quoting(*arguments: Any, **options: Any) -> Any:
        return {**run_in_child(*arguments, **options), "status": "failed", "error": "stage said \0 and \ud800"}

    monkeypatch.setattr(children, "run_in_child", quoting)

    row = replayed(world, artifact)

    assert (row.status, row.error) == ("failed", "stage said ? and ?")


def test_artifact_can_be_replayed_through_another_version(world: World) -> None:
    version = world.version()
    other = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv, stage_config=CHECK))

    row = replayed(world, artifact, version_id=str(other.pk))

    assert (row.version, row.result["egress"]) == (other, egress(*EVERYTHING))
    assert row.audit["spec_sha256"] == other.spec_hash


def test_stage_parameters_come_from_capture_or_its_deployment(world: World) -> None:
    agents = stories.fleet(world, 1)
    version = world.version()
    deployment = stories.active(world, world.bundle(version=version, stage_config=CHECK), agents)
    of_deployment = ingested(world, incident(version.spec_kv), deployment_id=str(deployment.pk))
    own = ingested(world, incident(version.spec_kv, stage_config={}), deployment_id=str(deployment.pk))
    none = ingested(world, incident(version.spec_kv, quotes_in=journal(PAYLOADS[:2])))

    assert replayed(world, of_deployment).result["egress"] == egress(*KEPT)
    assert replayed(world, own).result["egress"] == egress(*EVERYTHING)
    assert replayed(world, none).result["egress"] == egress(*EVERYTHING[:2])


def test_stage_parameters_come_from_requested_config_bundle(world: World) -> None:
    version = world.version()
    bundle = world.bundle(version=version, stage_config=CHECK)
    artifact = ingested(world, incident(version.spec_kv, stage_config={}))

    row = replayed(world, artifact, config_bundle_id=str(bundle.pk))

    assert (row.config_bundle, row.version, row.result["egress"]) == (bundle, version, egress(*KEPT))


def test_config_bundle_of_version_other_than_requested_one_is_refused(world: World) -> None:
    version = world.version()
    bundle = world.bundle(version=version)
    other = world.version(content=plan("other"))
    artifact = ingested(world, incident(version.spec_kv))

    response = request_replay(world, artifact, config_bundle_id=str(bundle.pk), version_id=str(other.pk))

    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == "/version_id"
    assert not Replay.objects.exists()


def test_repeated_dry_runs_have_equal_results(world: World) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv, stage_config=CHECK))

    one, two = (replayed(world, artifact) for _ in range(2))

    assert one.pk != two.pk
    assert one.result == two.result
    listed = world.viewer.api.get(world.path(rest=f"/replays?artifact_id={artifact.pk}")).json()["results"]
    assert [row["id"] for row in listed] == [str(two.pk), str(one.pk)]
    assert listed[0]["result"] == listed[1]["result"]


def test_truncated_journal_causes_warning_and_corrupt_first_record_fails_replay(world: World) -> None:
    version = world.version(content=IDENTITY)
    whole = journal()
    torn = ingested(world, incident(version.spec_kv, quotes_in=whole[:-3]))
    flipped = bytearray(whole)
    flipped[32] ^= 1  # corrupt the first record, because a corrupt last record only causes a warning
    bad = ingested(world, incident(version.spec_kv, quotes_in=bytes(flipped)))

    row = replayed(world, torn)
    assert (row.status, len(row.warnings)) == ("succeeded", 1)
    assert row.result["egress"] == egress(*EVERYTHING[:2])
    failed = replayed(world, bad)
    assert (failed.status, str(failed.error).startswith("journal/quotes_in.bin")) == ("failed", True)


def refused(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}"), response.json()
    assert Replay.objects.count() == 0
    assert not ProcrastinateJob.objects.filter(task_name="artifacts.replay").exists()
    assert not AuditEvent.objects.filter(action="replay.request").exists()


def test_replay_is_refused_if_no_version_in_environment_has_captured_spec(world: World) -> None:
    world.version()
    spec_kv = world.version(world.staging, IDENTITY).spec_kv
    artifact = ingested(world, incident(spec_kv))

    refused(request_replay(world, artifact), 422, "replay.no_version")


def test_replay_is_refused_if_replays_are_disabled(world: World) -> None:
    environment = world.environment("dev", "closed", replay_policy="disabled")
    version = world.version(environment)
    agent, api = world.agent(environment)
    incidents.upload(api, agent, incident(version.spec_kv), kind="incident_bundle")
    run_jobs()

    refused(request_replay(world, Artifact.objects.get()), 409, "replay.disabled")


def test_only_verified_incident_bundles_can_be_replayed(world: World) -> None:
    version = world.version()
    agent, api = world.agent()
    incidents.upload(api, agent, incident(version.spec_kv), kind="incident_bundle")
    received = Artifact.objects.get()
    refused(request_replay(world, received), 409, "not_verified")

    rejected = ingested(world, b"rubbish")
    refused(request_replay(world, rejected), 409, "not_verified")

    incidents.upload(api, agent, b"telemetry")
    run_jobs()
    refused(request_replay(world, Artifact.objects.get(kind="telemetry")), 409, "not_replayable")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"mode": "wet_run"}, "/mode"),
        ({"last_n": 0}, "/last_n"),
        ({"last_n": "all"}, "/last_n"),
        ({"journal_lane": "../x"}, "/journal_lane"),
        ({"version_id": str(uuid7())}, "/version_id"),
        ({"lastn": 1}, "/lastn"),
    ],
)
def test_error_points_to_invalid_replay_field(world: World, body: dict[str, Any], pointer: str) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))

    response = request_replay(world, artifact, **body)

    refused(response, 400, "invalid")
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


def test_replay_through_version_of_another_environment_is_refused(world: World) -> None:
    version = world.version()
    foreign = world.version(world.staging)
    artifact = ingested(world, incident(version.spec_kv))

    refused(request_replay(world, artifact, version_id=str(foreign.pk)), 400, "invalid")


def test_viewers_cannot_request_replays(world: World) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))

    refused(request_replay(world, artifact, world.viewer.api), 403, "forbidden")


def test_artifact_is_not_found_in_another_environment(world: World) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))

    response = world.operator.api.post(world.path(world.staging, f"/artifacts/{artifact.pk}/replay"), {})

    refused(response, 404, "not_found")


def test_dry_run_is_repeated_after_its_worker_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv))
    request_replay(world, artifact)
    row = Replay.objects.get()

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(children, "run_in_child", killed)
        with pytest.raises(Killed):
            replay_runs.run(str(row.pk))
    row.refresh_from_db()
    assert row.status == "running"

    run_jobs()
    row.refresh_from_db()
    assert (row.status, row.result["egress"]) == ("succeeded", egress(*EVERYTHING))
    replay_runs.run(str(row.pk))
    assert AuditEvent.objects.filter(action="replay.start").count() == 1


def test_replay_fails_when_its_job_gives_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))
    request_replay(world, artifact)

    def broken(*_: Any, **__: Any) -> None:
        raise ArithmeticError("not\0finite")

    monkeypatch.setattr(uploads, "extract_incident", broken)
    row = Replay.objects.get()
    with pytest.raises(ArithmeticError, match="finite") as caught:
        replay_job(Claim(), RunReplay(replay_id=str(row.pk)))
    row.refresh_from_db()
    assert row.status == "queued"

    gave_up = KINDS[RunReplay.name].gave_up
    assert gave_up is not None
    gave_up(GivenUp(killed=False, error=f"ArithmeticError: {caught.value}"), replay_id=str(row.pk))

    row.refresh_from_db()
    assert (row.status, row.error) == ("failed", "ArithmeticError: not?finite")
    replay_job(Claim(), RunReplay(replay_id=str(row.pk)))
    assert AuditEvent.objects.filter(action="replay.fail").count() == 1


def test_replay_audit_contains_posture_of_environment(world: World) -> None:
    version = world.version(world.prod)
    agent, api = world.agent(world.prod)
    incidents.upload(api, agent, incident(version.spec_kv), kind="incident_bundle")
    run_jobs()

    row = replayed(world, Artifact.objects.get())

    assert row.audit["policy"] == {"env": "prod", "approval_provided": False, "mode": "dry_run"}
    assert Environment.objects.get(pk=row.environment_id).posture == "prod"
