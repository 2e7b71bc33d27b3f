"""Create, change and delete fixtures: captures that are kept as regression tests of their pipeline."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.artifacts.models import Artifact, Fixture, Replay
from apps.artifacts.services import captures, children
from apps.artifacts.services.replay_runs import child_request
from apps.artifacts.services.uploads import declared_key, version_for
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, Membership, Quota, User
from apps.tenancy.services import audit, quotas
from apps.tenancy.services.revisions import edit, lock_revision
from apps.tenancy.services.state import advance, lock_row
from byteor.engine.machines import ArtifactEvent, ReplayStatus
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import Conflict, InvalidInput, Unavailable
from byteor_cloud.storage import blobs, data_folders

MAX_FIXTURES = 1_000
"""The most live fixtures of a pipeline in an environment."""
CHECK_S = 60.0  # timeout of the replay of a new fixture, in seconds; at the work limit it takes about ten


@dataclass(frozen=True, slots=True)
class _Checked:
    """A new fixture's pipeline, its golden result if it has one, and its reduced capture if it keeps only records."""

    pipeline: str
    golden: dict[str, Any] | None
    reduced: bytes | None


def live(environment: Environment, pipeline: str, now: datetime | None = None) -> QuerySet[Fixture]:
    """Return the fixtures of a pipeline that have not expired."""
    rows = Fixture.objects.filter(environment=environment, pipeline=pipeline)
    return rows.filter(Q(expires_at=None) | Q(expires_at__gt=now or timezone.now()))


def create(
    artifact: Artifact,
    *,
    environment: Environment,
    name: str,
    pipeline: str | None = None,
    owner: User | None = None,
    note: str = "",
    journal_lane: str | None = None,
    last_n: int | None = None,
    records: tuple[int, int] | None = None,
    expires_at: datetime | None = None,
    golden: Replay | None = None,
    actor: Actor,
    slot: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Fixture:
    """Keep a capture, or some of its records, as a fixture. Entering ``slot()`` waits until this process may compute.

    ``records`` are the first and the last position of the records to keep, in a new artifact. Without ``golden``, the
    fixture expects the same result as a baseline; otherwise it expects that replay's. Raises Conflict if the artifact
    cannot be replayed, the golden replay has no usable result, or the pipeline has too many fixtures; InvalidInput
    for arguments that do not fit together or too much work; QuotaExceeded, NotStored and Unavailable; IntegrityError
    for a taken name.
    """
    captures.check_readable(artifact)
    _check_arguments(artifact, environment, last_n=last_n, records=records, expires_at=expires_at, owner=owner)
    if golden is not None:
        _check_golden(golden, artifact, journal_lane, last_n, records)
    release_connection()
    with slot():
        checked = _check(artifact, pipeline, journal_lane, last_n, records, golden)
    if checked.reduced is not None:
        blobs.put_file(_hash(checked.reduced), ContentFile(checked.reduced))
    with transaction.atomic():
        lock_row(environment)
        if live(environment, checked.pipeline).count() >= MAX_FIXTURES:
            raise Conflict(
                f"The pipeline {checked.pipeline} has {MAX_FIXTURES} fixtures. Delete one before you create another.",
                code="fixture_limit",
            )
        kept = artifact
        if checked.reduced is not None and records is not None:
            kept = _store_reduced(artifact, checked.reduced, records, actor=actor)
        fixture = Fixture.objects.create(
            environment=environment,
            pipeline=checked.pipeline,
            name=name,
            owner=owner or (User.objects.filter(pk=actor.user_id).first() if actor.user_id else None),
            note=note,
            artifact=kept,
            journal_lane=journal_lane,
            last_n=last_n,
            expires_at=expires_at,
            golden_replay_id=None if golden is None else golden.pk,
            golden=checked.golden,
            created_by=actor.display,
        )
        audit.record(
            "fixture.create",
            actor=actor,
            scope=environment,
            resource=("fixture", fixture.pk),
            changes={
                "name": [None, name],
                "pipeline": [None, fixture.pipeline],
                "artifact": [None, str(kept.pk)],
                "expect": [None, fixture.expect],
            },
        )
    return fixture


def update(
    fixture: Fixture, values: Mapping[str, Any], *, actor: Actor, expected_revision: int | None = None
) -> Fixture:
    """Change a fixture's name, owner, note, expiry or expectation.

    ``golden`` in ``values`` is a replay, or None to expect the result of a baseline. Raises PreconditionFailed, the
    errors of ``create`` for these values, or IntegrityError for a taken name.
    """
    changed = dict(values)
    _check_arguments(
        fixture.artifact, fixture.environment, expires_at=values.get("expires_at"), owner=values.get("owner")
    )
    if "golden" in changed:
        replay = changed.pop("golden")
        changed |= {"golden_replay_id": replay and replay.pk, "golden": None}
        if replay is not None:
            _check_golden(replay, fixture.artifact, fixture.journal_lane, fixture.last_n, None)
            checked = _check(fixture.artifact, fixture.pipeline, fixture.journal_lane, fixture.last_n, None, replay)
            changed["golden"] = checked.golden
    if "owner" in changed:
        owner = changed.pop("owner")
        changed["owner_id"] = owner and owner.pk
    with transaction.atomic():
        locked = lock_revision(fixture, expected_revision)
        return edit(
            locked, changed, kind="fixture", scope=fixture.environment, actor=actor, unaudited={"golden", "note"}
        )


@transaction.atomic
def delete(fixture: Fixture, *, actor: Actor, expected_revision: int | None = None) -> None:
    """Delete a fixture. Its artifact is kept for as long as other artifacts of its age."""
    locked = lock_revision(fixture, expected_revision)
    audit.record(
        "fixture.delete",
        actor=actor,
        scope=fixture.environment,
        resource=("fixture", fixture.pk),
        changes={"name": [locked.name, None], "pipeline": [locked.pipeline, None]},
    )
    locked.delete()


def _check_arguments(
    artifact: Artifact,
    environment: Environment,
    *,
    last_n: int | None = None,
    records: tuple[int, int] | None = None,
    expires_at: datetime | None,
    owner: User | None,
) -> None:
    if records is not None and last_n is not None:
        raise InvalidInput.at("/records", "Use either `records` or `last_n`.", code="contradiction")
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidInput.at("/expires_at", "Must be in the future.", code="past")
    if owner is not None:
        project = environment.project
        of_project = Q(project=None) | Q(project=project)
        if not Membership.objects.filter(of_project, user=owner, organization=project.organization_id).exists():
            raise InvalidInput.at("/owner", "There is no such member in this organization.", code="does_not_exist")


def _check_golden(
    replay: Replay,
    artifact: Artifact,
    journal_lane: str | None,
    last_n: int | None,
    records: tuple[int, int] | None,
) -> None:
    pointer = "/expect/golden"
    if records is not None:
        detail = "A golden replay covers another selection than `records`. Create the fixture first, then replay it."
        raise InvalidInput.at(pointer, detail, code="other_selection")
    if replay.artifact_id != artifact.pk:
        raise InvalidInput.at(pointer, "The replay belongs to another artifact.", code="other_artifact")
    if (replay.journal_lane, replay.last_n) != (journal_lane, last_n):
        detail = "The replay has another selection. Use its `journal_lane` and `last_n`."
        raise InvalidInput.at(pointer, detail, code="other_selection")
    is_finished = replay.status in {ReplayStatus.SUCCEEDED, ReplayStatus.DIVERGED}
    # A stage error is a result, too: the fixture then expects the pipeline to stop at the same record.
    if not is_finished and replay.error_code != "stage_error":
        detail = f"The replay is {replay.status} and has no result. Choose a replay that has finished with one."
        raise Conflict(detail, code="fixture.golden_without_result")


def _check(
    artifact: Artifact,
    pipeline: str | None,
    journal_lane: str | None,
    last_n: int | None,
    records: tuple[int, int] | None,
    golden: Replay | None,
) -> _Checked:
    """Run the fixture's own configuration, or that of its golden replay, in a child process."""
    own: dict[str, Any] = {"spec_kv": None}
    if artifact.deployment is not None:
        own["stage_config"] = artifact.deployment.config_bundle.stage_config
    with data_folders.scratch_folder() as scratch:
        archive, reduced = scratch / "archive", scratch / "reduced"
        copy_blob(artifact.content_hash, archive)
        request = {
            **(own if golden is None else child_request(golden)),
            "kind": "check_fixture",
            "archive": str(archive),
            "journal_lane": journal_lane,
            "last_n": last_n,
            "records": records,
            "reduced": str(reduced),
        }
        try:
            found = children.run_in_child(request, scratch=scratch, readable=[archive], silence_s=CHECK_S)
        except children.Refused as refused:
            pointer = "/records" if records is not None else "/journal_lane" if journal_lane else "/artifact_id"
            raise InvalidInput.at(pointer, f"The capture cannot be replayed: {refused}.", code="not_usable") from None
        except children.ChildDied as died:
            raise Unavailable("The capture could not be replayed. Try again.", retry_after=5) from died
        except children.TookTooLong:
            raise Unavailable("The replay of the capture took too long. Try again later.", retry_after=10) from None
        content = reduced.read_bytes() if records is not None else None
    if pipeline is not None and found["pipeline"] != pipeline:
        detail = f"The capture belongs to the pipeline {found['pipeline']}."
        raise InvalidInput.at("/pipeline", detail, code="other_pipeline")
    if found["error"] is not None:
        raise InvalidInput.at("/artifact_id", f"The capture cannot be a fixture: {found['error']}.", code="not_usable")
    stored = None
    if golden is not None:
        if found["result"]["egress"] != (golden.result or {}).get("egress"):
            detail = "This release no longer gives the result of that replay. Replay the capture again."
            raise Conflict(detail, code="fixture.golden_changed")
        stored = {name: found[name] for name in ("result", "spec_kv", "stage_config")}
    return _Checked(found["pipeline"], stored, content)


def copy_blob(content_hash: str, target: Path) -> None:
    """Copy a blob to a file. Raises NotStored, Unavailable or OSError."""
    with blobs.read(content_hash) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)


def _hash(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _store_reduced(artifact: Artifact, content: bytes, records: tuple[int, int], *, actor: Actor) -> Artifact:
    """Create the artifact of a reduced capture, whose blob is stored, or return the existing one."""
    content_hash = _hash(content)
    blobs.protect(content_hash)
    if not blobs.is_stored(content_hash):
        raise Unavailable("The reduced capture was being deleted at the same time. Try again.", retry_after=1)
    declared = declared_key(artifact.kind, artifact.spec_hash, artifact.deployment_id)
    same = Artifact.objects.filter(
        environment=artifact.environment_id, content_hash=content_hash, declared=declared
    ).first()
    if same is not None:
        return same
    organization = artifact.environment.project.organization_id
    needed = {Quota.STORED_BYTES: len(content)}
    if quotas.check(organization, needed):
        quotas.reserve(organization, needed)
    row = Artifact.objects.create(
        environment=artifact.environment,
        agent=artifact.agent,
        kind=artifact.kind,
        captured_at=artifact.captured_at,
        spec_hash=artifact.spec_hash,
        deployment=artifact.deployment,
        metadata=artifact.metadata,
        declared=declared,
        content_hash=content_hash,
        size_bytes=len(content),
        origin={"artifact_id": str(artifact.pk), "records": list(records)},
    )
    audit.record(
        "artifact.reduce",
        actor=actor,
        scope=artifact.environment,
        resource=("artifact", row.pk),
        changes={"origin": [None, row.origin], "size_bytes": [None, len(content)]},
    )
    version = version_for(row, row.spec_hash or "")
    return advance(row, ArtifactEvent.VERIFY, actor=actor, version=version)
