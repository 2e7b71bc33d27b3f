"""Dry-run replays: results with exact digests, divergence, the choice of the version, and refused requests."""

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


def ask(world: World, artifact: Artifact, api: Api | None = None, **body: Any) -> Any:
    path = world.path(artifact.environment, f"/artifacts/{artifact.pk}/replay")
    return (api or world.operator.api).post(path, body)


def replayed(world: World, artifact: Artifact, **body: Any) -> Replay:
    answer = ask(world, artifact, **body)
    assert answer.status_code == 202, answer.json()
    run_jobs()
    return Replay.objects.get(pk=answer.json()["id"])


def egress(*outputs: tuple[int, bytes]) -> dict[str, Any]:
    return {"quotes_out": {"records": len(outputs), "sha256": digest_of(*outputs)}}


FAITHFUL: dict[str, Any] = {"divergence": None, "reproduced": None, "notes": []}


def counts(records: int, out: int | None = None, dropped: int = 0, errors: int = 0) -> dict[str, Any]:
    """Return the counters of a stage; the second record is the only one that may be dropped, by a schema."""
    drops = {"schema": {"count": dropped, "first_sequence": 2}} if dropped else {}
    return {
        "in": records, "out": records if out is None else out, "dropped": dropped, "errors": errors, "drops": drops,
    }  # fmt: skip


def test_identity_returns_its_input(world: World) -> None:
    version = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv, expected=frames(*EVERYTHING)))

    asked = ask(world, artifact)

    assert (asked.status_code, asked.json()["status"], asked.json()["mode"]) == (202, "queued", "dry_run")
    assert asked["Location"] == world.path(rest=f"/replays/{asked.json()['id']}")
    run_jobs()
    body = world.viewer.api.get(asked["Location"]).json()
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


def test_checks_drop_records_that_do_not_conform(world: World) -> None:
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


def test_fused_op_checks_before_it_redacts(world: World) -> None:
    stages = [{"id": "both", "op": "dataguard_fused"}]
    version = world.version(content=plan(stages=stages))
    config = {"both": {"schema": {"type": "object", "required": ["card"]}, "rules": ["card:drop"]}}
    artifact = ingested(world, incident(version.spec_kv, stage_config=config))

    result = replayed(world, artifact).result

    assert result["egress"] == egress((1, b'{"id":1}'), (3, b'{"id":3}'))
    assert result["stages"] == {"both": counts(3, 2, 1)}


def test_stopping_check_fails_and_names_stage_and_record(world: World) -> None:
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


def test_replay_diverges_when_the_output_differs_from_the_expected_one(world: World) -> None:
    version = world.version(content=IDENTITY)
    expected = frames(EVERYTHING[0], (2, b'{"no":"ID"}'), EVERYTHING[2])
    artifact = ingested(world, incident(version.spec_kv, expected=expected))

    row = replayed(world, artifact)

    assert (row.status, row.error) == ("diverged", None)
    assert row.result["egress"] == egress(*EVERYTHING)
    divergence = row.result["divergence"]
    assert (divergence["egress"], divergence["sequence"]) == ("quotes_out", 2)
    assert AuditEvent.objects.filter(action="replay.diverge").count() == 1


def test_replay_of_the_last_records_only(world: World) -> None:
    version = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv, expected=frames(*EVERYTHING)))

    row = replayed(world, artifact, last_n=2)

    assert (row.status, row.last_n) == ("succeeded", 2)
    assert row.result["egress"] == egress(*EVERYTHING[1:])
    assert (row.audit["input"]["last_n"], row.audit["input"]["scanned_records"]) == (2, 3)


def test_replay_of_another_journal_lane(world: World) -> None:
    version = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv, quotes_in=journal(), other=journal([b"x"])))

    missing = replayed(world, artifact, journal_lane="third")

    assert missing.status == "failed"
    assert missing.error == "the bundle has no journal of lane 'third'; its journals are: other, quotes_in"


def test_error_with_control_characters_is_stored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv))

    run_in_child = children.run_in_child

    def quoting(*arguments: Any, **options: Any) -> Any:
        return {**run_in_child(*arguments, **options), "status": "failed", "error": "stage said \0 and \ud800"}

    monkeypatch.setattr(children, "run_in_child", quoting)

    row = replayed(world, artifact)

    assert (row.status, row.error) == ("failed", "stage said ? and ?")


def test_an_artifact_can_be_replayed_through_another_version(world: World) -> None:
    version = world.version()
    other = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv, stage_config=CHECK))

    row = replayed(world, artifact, version_id=str(other.pk))

    assert (row.version, row.result["egress"]) == (other, egress(*EVERYTHING))
    assert row.audit["spec_sha256"] == other.spec_hash


def test_stage_parameters_come_from_the_bundle_or_else_from_the_deployment(world: World) -> None:
    agents = stories.fleet(world, 1)
    version = world.version()
    deployment = stories.active(world, world.bundle(version=version, stage_config=CHECK), agents)
    of_deployment = ingested(world, incident(version.spec_kv), deployment_id=str(deployment.pk))
    own = ingested(world, incident(version.spec_kv, stage_config={}), deployment_id=str(deployment.pk))
    none = ingested(world, incident(version.spec_kv, quotes_in=journal(PAYLOADS[:2])))

    assert replayed(world, of_deployment).result["egress"] == egress(*KEPT)
    assert replayed(world, own).result["egress"] == egress(*EVERYTHING)
    assert replayed(world, none).result["egress"] == egress(*EVERYTHING[:2])


def test_stage_parameters_come_from_the_named_config_bundle(world: World) -> None:
    version = world.version()
    bundle = world.bundle(version=version, stage_config=CHECK)
    artifact = ingested(world, incident(version.spec_kv, stage_config={}))

    row = replayed(world, artifact, config_bundle_id=str(bundle.pk))

    assert (row.config_bundle, row.version, row.result["egress"]) == (bundle, version, egress(*KEPT))


def test_config_bundle_refuses_another_version(world: World) -> None:
    version = world.version()
    bundle = world.bundle(version=version)
    other = world.version(content=plan("other"))
    artifact = ingested(world, incident(version.spec_kv))

    answer = ask(world, artifact, config_bundle_id=str(bundle.pk), version_id=str(other.pk))

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/version_id"
    assert not Replay.objects.exists()


def test_replays_are_deterministic(world: World) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv, stage_config=CHECK))

    one, two = (replayed(world, artifact) for _ in range(2))

    assert one.pk != two.pk
    assert one.result == two.result
    listed = world.viewer.api.get(world.path(rest=f"/replays?artifact_id={artifact.pk}")).json()["results"]
    assert [row["id"] for row in listed] == [str(two.pk), str(one.pk)]
    assert listed[0]["result"] == listed[1]["result"]


def test_truncated_journal_is_a_warning_and_a_corrupt_one_an_error(world: World) -> None:
    version = world.version(content=IDENTITY)
    whole = journal()
    torn = ingested(world, incident(version.spec_kv, quotes_in=whole[:-3]))
    flipped = bytearray(whole)
    flipped[32] ^= 1  # in the first payload; in the last record it would only be a warning
    bad = ingested(world, incident(version.spec_kv, quotes_in=bytes(flipped)))

    row = replayed(world, torn)
    assert (row.status, len(row.warnings)) == ("succeeded", 1)
    assert row.result["egress"] == egress(*EVERYTHING[:2])
    failed = replayed(world, bad)
    assert (failed.status, str(failed.error).startswith("journal/quotes_in.bin")) == ("failed", True)


def refused(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:byteor:problem:{code}"), answer.json()
    assert Replay.objects.count() == 0
    assert not ProcrastinateJob.objects.filter(task_name="artifacts.replay").exists()
    assert not AuditEvent.objects.filter(action="replay.request").exists()


def test_replay_is_refused_without_a_version(world: World) -> None:
    world.version()
    spec_kv = world.version(world.staging, IDENTITY).spec_kv
    artifact = ingested(world, incident(spec_kv))

    refused(ask(world, artifact), 422, "replay.no_version")


def test_replay_is_refused_where_replays_are_disabled(world: World) -> None:
    environment = world.environment("dev", "closed", replay_policy="disabled")
    version = world.version(environment)
    agent, api = world.agent(environment)
    incidents.upload(api, agent, incident(version.spec_kv), kind="incident_bundle")
    run_jobs()

    refused(ask(world, Artifact.objects.get()), 409, "replay.disabled")


def test_only_verified_incident_bundles_can_be_replayed(world: World) -> None:
    version = world.version()
    agent, api = world.agent()
    incidents.upload(api, agent, incident(version.spec_kv), kind="incident_bundle")
    received = Artifact.objects.get()
    refused(ask(world, received), 409, "not_verified")

    rejected = ingested(world, b"rubbish")
    refused(ask(world, rejected), 409, "not_verified")

    incidents.upload(api, agent, b"telemetry")
    run_jobs()
    refused(ask(world, Artifact.objects.get(kind="telemetry")), 409, "not_replayable")


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
def test_invalid_replay_request_names_the_field(world: World, body: dict[str, Any], pointer: str) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))

    answer = ask(world, artifact, **body)

    refused(answer, 400, "invalid")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_version_of_another_environment_is_unknown(world: World) -> None:
    version = world.version()
    foreign = world.version(world.staging)
    artifact = ingested(world, incident(version.spec_kv))

    refused(ask(world, artifact, version_id=str(foreign.pk)), 400, "invalid")


def test_viewers_cannot_request_replays(world: World) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))

    refused(ask(world, artifact, world.viewer.api), 403, "forbidden")


def test_artifact_is_not_found_in_another_environment(world: World) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))

    answer = world.operator.api.post(world.path(world.staging, f"/artifacts/{artifact.pk}/replay"), {})

    refused(answer, 404, "not_found")


def test_dry_run_runs_again_after_its_worker_was_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = world.version(content=IDENTITY)
    artifact = ingested(world, incident(version.spec_kv))
    ask(world, artifact)
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


def test_replay_fails_after_its_last_attempt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))
    ask(world, artifact)

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


def test_audit_of_a_replay_contains_the_posture(world: World) -> None:
    version = world.version(world.prod)
    agent, api = world.agent(world.prod)
    incidents.upload(api, agent, incident(version.spec_kv), kind="incident_bundle")
    run_jobs()

    row = replayed(world, Artifact.objects.get())

    assert row.audit["policy"] == {"env": "prod", "approval_provided": False, "mode": "dry_run"}
    assert Environment.objects.get(pk=row.environment_id).posture == "prod"
