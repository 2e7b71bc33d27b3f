"""Ingest, which verifies an incident bundle or rejects it with a list of reasons."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replays, uploads
from apps.tenancy.models import AuditEvent
from byteor.engine.compiler import compile_plan
from byteor.engine.replay import Record, encode_journal
from tests.artifacts import incidents
from tests.artifacts.incidents import archive, files_of, incident, ingested, journal
from tests.engine.replay import everywhere
from tests.releases import stories
from tests.worlds import PLAN, World, plan, run_jobs

pytestmark = pytest.mark.django_db

SPEC_KV = str(compile_plan(PLAN).spec_kv)


@pytest.fixture(autouse=True)
def _only_verified_captures_stay_unpacked(store: Path) -> Iterator[None]:
    yield
    data = Path(settings.CONFIG.data_dir)
    assert list(data.glob("scratch/*")) == []
    kept = {path.name for path in data.glob("captures/*/*")}
    assert kept == {f"{row.pk}.{row.derived_bytes}" for row in Artifact.objects.filter(status="verified")}


def test_valid_bundle_is_verified_and_linked_to_its_version(world: World) -> None:
    version = world.version()

    artifact = ingested(world, incident(version.spec_kv))

    assert (artifact.status, artifact.reasons) == ("verified", [])
    assert (artifact.spec_hash, artifact.version) == (version.spec_hash, version)
    event = AuditEvent.objects.get(action="artifact.verify")
    assert (event.resource_id, event.actor_kind) == (str(artifact.pk), "system")


def test_bundle_without_deployment_is_linked_to_newest_version_with_its_spec(world: World) -> None:
    world.version()
    newest = world.version(content={**PLAN, "description": "the same spec"})

    assert ingested(world, incident(SPEC_KV)).version == newest


def test_bundle_is_linked_to_version_of_its_deployment_with_same_spec(world: World) -> None:
    agents = stories.fleet(world, 1)
    deployed = world.version()
    deployment = stories.active(world, world.bundle(version=deployed), agents)
    world.version(content={**PLAN, "description": "the same spec"})

    artifact = ingested(world, incident(SPEC_KV), deployment_id=str(deployment.pk))

    assert (artifact.version, artifact.deployment) == (deployed, deployment)


def test_bundle_is_not_linked_to_version_of_deployment_with_different_spec(world: World) -> None:
    agents = stories.fleet(world, 1)
    other = world.bundle(version=world.version(content=plan(egress="elsewhere")))
    deployment = stories.active(world, other, agents)
    fitting = world.version()

    assert ingested(world, incident(SPEC_KV), deployment_id=str(deployment.pk)).version == fitting


def test_bundle_without_matching_version_is_verified(world: World) -> None:
    world.version(world.staging)

    artifact = ingested(world, incident(SPEC_KV))

    assert (artifact.status, artifact.version) == ("verified", None)
    assert artifact.spec_hash == compile_plan(PLAN).spec_hash


def test_bundle_with_unknown_keys_and_files_is_verified(world: World) -> None:
    files = files_of(SPEC_KV, **{"more/notes.txt": b"x"})
    files["runtime.json"] = b'{"crate": {"name": "n", "version": "1", "more": 1}, "more": null}'

    assert ingested(world, archive(files)).status == "verified"


def without(name: str) -> bytes:
    return archive({key: content for key, content in files_of(SPEC_KV).items() if key != name})


def member(name: str, **attributes: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(made, attribute, value)
    return made


@pytest.mark.parametrize(
    ("make_content", "code"),
    [
        (lambda: b"no archive at all", "not_an_archive"),
        (lambda: incident(SPEC_KV)[:-20], "truncated"),
        (lambda: archive(files_of(SPEC_KV), member("bomb", size=513 << 20)), "too_large"),
        (
            lambda: archive({"load": os.urandom(400_000), **{f"f{number}": b"" for number in range(10_000)}}),
            "too_many_entries",
        ),
        (lambda: archive({**files_of(SPEC_KV), "../outside": b"x"}), "bad_path"),
        (lambda: archive({**files_of(SPEC_KV), "/etc/passwd": b"x"}), "bad_path"),
        (lambda: archive({**files_of(SPEC_KV), "a/../../b": b"x"}), "bad_path"),
        (lambda: archive(files_of(SPEC_KV), member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "bad_entry"),
        (lambda: archive(files_of(SPEC_KV), member("hard", type=tarfile.LNKTYPE, linkname="spec.kv")), "bad_entry"),
        (lambda: archive(files_of(SPEC_KV), member("pipe", type=tarfile.FIFOTYPE)), "bad_entry"),
        (lambda: archive(files_of(SPEC_KV), member("spec.kv")), "duplicate_entry"),
        (lambda: without("spec.kv"), "missing_file"),
        (lambda: without("environment.json"), "missing_file"),
        (lambda: archive(files_of(SPEC_KV, **{"runtime.json": b'{"crate": {"name": "n"}}'})), "missing_key"),
        (lambda: archive(files_of(SPEC_KV, **{"runtime.json": b"{"})), "bad_json"),
        (lambda: archive(files_of(SPEC_KV, **{"runtime.json": b'{"crate": "\\ud800"}'})), "bad_json"),
        (lambda: archive(files_of(SPEC_KV, **{"spec.kv": b"spec.v=\0"})), "bad_spec"),
        (lambda: archive(files_of(SPEC_KV, **{"spec.kv": SPEC_KV.encode()[:-1]})), "bad_spec"),
    ],
    ids=[
        "not an archive", "truncated", "decompression bomb", "too many entries", "parent path", "absolute path",
        "path with dots", "symbolic link", "hard link", "fifo", "duplicate entry", "missing spec", "missing document",
        "missing key", "invalid JSON", "lone surrogate", "NUL in spec", "missing final newline",
    ],
)  # fmt: skip
def test_invalid_bundle_is_rejected_with_reason(world: World, make_content: Callable[[], bytes], code: str) -> None:
    world.version()

    artifact = ingested(world, make_content())

    assert (artifact.status, artifact.version, artifact.spec_hash) == ("rejected", None, None)
    assert [reason["code"] for reason in artifact.reasons] == [code]
    event = AuditEvent.objects.get(action="artifact.reject")
    assert event.changes["reasons"] == artifact.reasons
    shown = world.viewer.api.get(world.path(rest=f"/artifacts/{artifact.pk}")).json()
    assert (shown["status"], shown["reasons"]) == ("rejected", artifact.reasons)


def test_rejection_lists_all_missing_files_missing_keys_and_bad_values(world: World) -> None:
    files = files_of(SPEC_KV)
    files["policy_audit.json"] = b'{"ok": true, "policy_version": 2, "stage_failure_policy": "go_on"}'
    del files["environment.json"]

    artifact = ingested(world, archive(files))

    found = sorted((reason["code"], reason["detail"]) for reason in artifact.reasons)
    assert found == [
        ("bad_value", "policy_audit.json: policy_version must be 1"),
        ("bad_value", "policy_audit.json: stage_failure_policy must be 'stop_pipeline'"),
        ("missing_file", "environment.json"),
        ("missing_key", "policy_audit.json: enforced"),
        ("missing_key", "policy_audit.json: mode"),
        ("missing_key", "policy_audit.json: spec_path"),
    ]


def test_bundle_is_rejected_if_declared_spec_hash_differs(world: World) -> None:
    wrong = "sha256:" + "0" * 64

    artifact = ingested(world, incident(SPEC_KV), spec_hash=wrong)

    assert (artifact.status, artifact.version) == ("rejected", None)
    (reason,) = artifact.reasons
    assert reason["code"] == "spec_hash"
    assert wrong in reason["detail"]


def test_repeated_ingest_of_verified_artifact_changes_nothing(world: World) -> None:
    world.version()
    artifact = ingested(world, incident(SPEC_KV))
    events = AuditEvent.objects.count()

    uploads.ingest(str(artifact.pk))

    assert AuditEvent.objects.count() == events
    assert Artifact.objects.get().status == "verified"


def test_ingest_of_deleted_artifact_does_nothing(world: World, run_jobs: Callable[[], int]) -> None:
    agent, api = world.agent()
    incidents.upload(api, agent, incident(SPEC_KV), kind="incident_bundle")
    Artifact.objects.all().delete()

    run_jobs()

    assert AuditEvent.objects.filter(action__in=["artifact.verify", "artifact.reject"]).count() == 0


def test_unordered_ingress_journals_can_be_replayed_but_egress_journal_cannot(world: World) -> None:
    """In ``web``, times decrease and a sequence number repeats. In ``app``, sequence numbers decrease.

    The egress ``clean`` also has a journal.
    """
    version = world.version(content=everywhere.PLAN)
    web = encode_journal(Record(sequence, 9 - sequence, b'{"id":1}') for sequence in (1, 2, 2, 3))
    app = encode_journal(Record(sequence, 9 - sequence, b'{"id":2}') for sequence in (3, 2, 1))
    artifact = ingested(world, incident(version.spec_kv, web=web, app=app, clean=journal()))
    for lane in (None, "clean"):
        replays.request(artifact, environment=world.dev, journal_lane=lane, actor=world.operator.actor)

    run_jobs()

    both, egress = Replay.objects.order_by("id")
    assert (both.status, both.result["egress"]["clean"]["records"]) == ("succeeded", 7)
    assert both.warnings == ["journal/clean.bin is not replayed, because its lane is not an ingress of the spec"]
    assert (egress.status, egress.error_code) == ("failed", "bad_input")
    assert "'clean' is not an ingress or a lane of the spec" in (egress.error or "")
