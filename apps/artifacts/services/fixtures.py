"""Create, change and delete fixtures: captures that are kept as regression tests of their pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.artifacts.models import Artifact, Fixture, Replay
from apps.artifacts.services import captures, children
from apps.artifacts.services.replay_runs import RELATED, child_request
from apps.artifacts.services.uploads import declared_key, version_for
from apps.releases.jobs import CheckCurrent
from apps.releases.models import FixtureRevision
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, Membership, Quota, User
from apps.tenancy.services import audit, quotas
from apps.tenancy.services.revisions import edit, lock_revision
from apps.tenancy.services.state import advance, lock_row
from byteor.engine.canonical import sha256
from byteor.engine.machines import ArtifactEvent, ReplayStatus
from byteor.engine.replay.verdicts import MAX_FIXTURE_WORK
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import Conflict, Forbidden, InvalidInput, Unavailable
from byteor_cloud.storage import blobs, data_folders
from byteor_cloud.worker.jobs import enqueue

MAX_FIXTURES = 1_000
"""The maximum number of live fixtures of a pipeline in an environment."""
NO_MEMBER = "There is no such member in this project."
MAX_GOLDEN_BYTES = 128 * 1024
"""The maximum size of a golden result with its configuration, because a regression reads many of them together."""
# The seconds without progress after which the replay of a fixture is stopped.
CHECK_S = 60.0

type Slot = Callable[[], AbstractContextManager[None]]
"""A function that returns a context manager. Entering the context manager waits until this process may compute."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of ``check``.

    ``golden`` is the golden result with its configuration, and None if the result of a baseline is expected.
    ``reduced`` is the capture with only the requested ``records``, and None if no ``records`` were given.
    """

    pipeline: str
    golden: dict[str, Any] | None
    reduced: bytes | None


def live(environment: Environment, pipeline: str, now: datetime | None = None) -> QuerySet[Fixture]:
    """Return the fixtures of a pipeline that have not expired at ``now``, by default the current time."""
    rows = Fixture.objects.filter(environment=environment, pipeline=pipeline)
    return rows.filter(~is_expired(since=now))


def is_expired(*, since: datetime | None = None) -> Q:
    """Return the condition that a fixture had expired at a time, by default now."""
    return Q(expires_at__lte=since or timezone.now())


def check(
    artifact: Artifact,
    *,
    environment: Environment,
    name: str,
    pipeline: str | None = None,
    owner: User | None = None,
    journal_lane: str | None = None,
    last_n: int | None = None,
    records: tuple[int, int] | None = None,
    expires_at: datetime | None = None,
    golden: Replay | None = None,
    slot: Slot = nullcontext,
) -> Checked:
    """Check the arguments of ``create``, replay the capture once, and store the blob of a reduced capture.

    Raises errors of ``create``, but no IntegrityError. The name, the number of fixtures and the quotas are also
    checked here, so that few blobs are stored for fixtures that ``create`` then refuses.
    """
    captures.check_readable(artifact)
    if records is not None and last_n is not None:
        raise InvalidInput.at("/records", "Use either `records` or `last_n`.", code="contradiction")
    _check_expiry(expires_at)
    _check_owner(owner, environment)
    if golden is not None:
        _check_golden(golden, artifact, journal_lane, last_n, records)
    release_connection()
    with slot():
        checked = _replay_once(artifact, pipeline, journal_lane, last_n, records, golden)
    _check_limit(environment, checked.pipeline)
    if Fixture.objects.filter(environment=environment, pipeline=checked.pipeline, name=name).exists():
        raise Conflict("That name is already taken. Choose another one.", code="name_taken")
    if checked.reduced is not None:
        content_hash = sha256(checked.reduced)
        if not Artifact.objects.filter(environment=environment, content_hash=content_hash).exists():
            quotas.check(environment.project.organization_id, {Quota.STORED_BYTES: len(checked.reduced)})
        blobs.put_file(content_hash, ContentFile(checked.reduced))
    return checked


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
    checked: Checked | None = None,
    slot: Slot = nullcontext,
) -> Fixture:
    """Keep a capture, or some of its records, as a fixture. ``owner`` defaults to the actor, if it is a person.

    With ``records``, the positions of a first and a last record, the fixture gets an artifact with only these records,
    which is created unless it exists. The fixture expects the result of the replay ``golden`` or, without one, the
    result of a baseline.
    ``checked`` is the result of ``check``. Without it, ``check`` is called.

    Raises Conflict if the artifact, or the existing one with only these records, is not a verified incident bundle, the
    golden replay has no usable result or now gives another one, the name is taken, or the pipeline has too many
    fixtures; InvalidInput if an argument is invalid or contradicts another one or the capture, or if the replay needs
    too much work; NotFound if the artifact was deleted; IntegrityError if the name was taken after the check;
    QuotaExceeded, NotStored, InsufficientStorage or Unavailable.
    """
    checked = checked or check(
        artifact,
        environment=environment,
        name=name,
        pipeline=pipeline,
        owner=owner,
        journal_lane=journal_lane,
        last_n=last_n,
        records=records,
        expires_at=expires_at,
        golden=golden,
        slot=slot,
    )
    with transaction.atomic():
        lock_row(environment)
        kept = lock_row(artifact)  # retention deletes no locked artifact
        _check_limit(environment, checked.pipeline)
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
        count_change(environment, fixture.pipeline)
        if golden is not None:
            _check_current(environment, fixture.pipeline)
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


def check_update(
    fixture: Fixture, values: Mapping[str, Any], *, may_manage: bool, slot: Slot = nullcontext
) -> dict[str, Any]:
    """Check the values of ``update``, and return the new values of columns.

    If a new golden result is expected, the capture is replayed once. Call this outside of a transaction. Raises the
    errors of ``update``, except PreconditionFailed and the errors for a deleted fixture, a used name and too many
    fixtures.
    """
    changed, environment = dict(values), fixture.environment
    if "expect" in changed:
        changed["golden_replay_id"] = changed.pop("expect")
    if "owner" in changed:
        owner = changed.pop("owner")
        changed["owner_id"] = owner and owner.pk
        if changed["owner_id"] != fixture.owner_id:
            _check_owner(owner, environment)
    _check_may_change(fixture, changed, may_manage=may_manage)
    if _differs(fixture, changed, "expires_at"):
        _check_expiry(changed["expires_at"])
    if _differs(fixture, changed, "golden_replay_id"):
        changed["golden"] = _golden_result(fixture, changed["golden_replay_id"], slot)
        changed["also_expected"] = changed["also_golden"] = []
    return changed


def update(
    fixture: Fixture,
    values: Mapping[str, Any],
    *,
    may_manage: bool,
    actor: Actor,
    expected_revision: int | None = None,
    slot: Slot = nullcontext,
    checked: Mapping[str, Any] | None = None,
) -> Fixture:
    """Change a fixture's name, owner, note, expiry or expectation.

    ``expect`` in ``values`` is the id of a replay, or None to expect the result of a baseline. ``checked`` is the
    result of ``check_update``. Without it, ``check_update`` is called. Raises Forbidden if the expectation or the
    expiry would change and ``may_manage`` is false, NotFound if the fixture was deleted, PreconditionFailed, the errors
    of ``create`` for changed values, or IntegrityError for a taken name.
    """
    if checked is None:
        checked = check_update(fixture, values, may_manage=may_manage, slot=slot)
    environment = fixture.environment
    with transaction.atomic():
        lock_row(environment)
        locked = lock_revision(fixture, expected_revision)
        _check_may_change(locked, checked, may_manage=may_manage)
        if locked.is_expired and _differs(locked, checked, "expires_at"):
            _check_limit(environment, locked.pipeline)
        if any(_differs(locked, checked, name) for name in ("expires_at", "golden_replay_id")):
            count_change(environment, locked.pipeline)
            if checked.get("golden_replay_id", locked.golden_replay_id) is not None:
                _check_current(environment, locked.pipeline)
        unaudited = {"golden", "also_golden", "note"}
        return edit(locked, checked, kind="fixture", scope=environment, actor=actor, unaudited=unaudited)


def _differs(fixture: Fixture, values: Mapping[str, Any], name: str) -> bool:
    return name in values and values[name] != getattr(fixture, name)


def _check_may_change(fixture: Fixture, values: Mapping[str, Any], *, may_manage: bool) -> None:
    if not may_manage and any(_differs(fixture, values, name) for name in ("expires_at", "golden_replay_id")):
        detail = "To change `expect` or `expires_at`, you need the permission to manage the environment."
        raise Forbidden(detail)


def _golden_result(fixture: Fixture, replay_id: UUID | None, slot: Slot) -> dict[str, Any] | None:
    """Return the golden result that a fixture will expect; None if it will expect the result of a baseline."""
    if replay_id is None:
        return None
    artifact, selection = fixture.artifact, (fixture.journal_lane, fixture.last_n, None)
    replay = find_replay(fixture.environment, replay_id)
    _check_golden(replay, artifact, *selection)
    release_connection()
    with slot():
        return _replay_once(artifact, fixture.pipeline, *selection, replay).golden


def find_replay(environment: Environment, replay_id: UUID) -> Replay:
    """Return the replay whose result a fixture should expect. Raises InvalidInput."""
    found = Replay.objects.select_related(*RELATED).filter(environment=environment, pk=replay_id).first()
    if found is None:
        detail = "There is no such replay in this environment."
        raise InvalidInput.at("/expect/golden", detail, code="does_not_exist")
    return found


@transaction.atomic
def delete(fixture: Fixture, *, actor: Actor, expected_revision: int | None = None) -> None:
    """Delete a fixture. It then no longer protects its artifact from retention.

    Raises NotFound if the fixture was already deleted, or PreconditionFailed.
    """
    environment = lock_row(fixture.environment)
    locked = lock_revision(fixture, expected_revision)
    count_change(environment, locked.pipeline, is_removal=True)
    audit.record(
        "fixture.delete",
        actor=actor,
        scope=fixture.environment,
        resource=("fixture", fixture.pk),
        changes={"name": [locked.name, None], "pipeline": [locked.pipeline, None]},
    )
    locked.delete()


def count_change(environment: Environment, pipeline: str, *, is_removal: bool = False) -> None:
    """Count a change of the pipeline's fixtures, so that the replay gate notices it. Lock the environment first.

    ``is_removal`` states that the change cannot turn an equal result into a different one, like a deletion.
    """
    row, _ = FixtureRevision.objects.get_or_create(environment=environment, pipeline=pipeline)
    if is_removal:
        row.removed += 1
    else:
        row.revision += 1
    row.save(update_fields=["revision", "removed"])


def _check_current(environment: Environment, pipeline: str) -> None:
    """Enqueue the job that queues the regression of what runs now, if it is due."""
    enqueue(
        CheckCurrent(environment_id=str(environment.pk), pipeline=pipeline),
        organization=environment.project.organization_id,
        once=f"check_current:{environment.pk}:{pipeline}",
    )


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidInput.at("/expires_at", "Must be in the future.", code="past")


def _check_owner(owner: User | None, environment: Environment) -> None:
    project = environment.project
    of_project = Q(project=None) | Q(project=project)
    members = Membership.objects.filter(of_project, organization=project.organization_id)
    if owner is not None and not members.filter(user=owner).exists():
        raise InvalidInput.at("/owner", NO_MEMBER, code="does_not_exist")


def _check_limit(environment: Environment, pipeline: str) -> None:
    """Raise Conflict if the pipeline has the maximum number of live fixtures. Exact only in a locked environment."""
    if live(environment, pipeline).count() >= MAX_FIXTURES:
        raise Conflict(
            f"The pipeline {pipeline} has {MAX_FIXTURES} fixtures that have not expired. Delete one of them first.",
            code="fixture_limit",
        )


def has_result(replay: Replay) -> bool:
    """Return whether the replay has finished with a result that a fixture can expect."""
    # A stage error is also a result. The fixture then expects the pipeline to stop at the same record.
    return replay.status in {ReplayStatus.SUCCEEDED, ReplayStatus.DIVERGED} or replay.error_code == "stage_error"


def _check_golden(
    replay: Replay,
    artifact: Artifact,
    journal_lane: str | None,
    last_n: int | None,
    records: tuple[int, int] | None,
) -> None:
    pointer = "/expect/golden"
    if records is not None:
        detail = (
            "Not possible with `records`. Create the fixture without a golden replay, replay the fixture's artifact, "
            "and then set `expect` to that replay."
        )
        raise InvalidInput.at(pointer, detail, code="other_selection")
    if replay.artifact_id != artifact.pk:
        raise InvalidInput.at(pointer, "The replay belongs to another artifact.", code="other_artifact")
    if (replay.journal_lane, replay.last_n) != (journal_lane, last_n):
        detail = "The replay has another `journal_lane` or `last_n` than the fixture."
        raise InvalidInput.at(pointer, detail, code="other_selection")
    if not has_result(replay):
        detail = f"The replay is {replay.status} and has no usable result. Choose a replay that has one."
        raise Conflict(detail, code="fixture.golden_without_result")


def _replay_once(
    artifact: Artifact,
    pipeline: str | None,
    journal_lane: str | None,
    last_n: int | None,
    records: tuple[int, int] | None,
    golden: Replay | None,
) -> Checked:
    """Replay the capture in a child process. Raises InvalidInput, Conflict, NotStored and Unavailable.

    The capture is replayed through its own configuration or, with ``golden``, through that replay's configuration.
    """
    pointer = "/records" if records is not None else "/journal_lane" if journal_lane else "/artifact_id"
    own: dict[str, Any] = {"spec_kv": None}
    if artifact.deployment is not None:
        own["stage_config"] = artifact.deployment.config_bundle.stage_config
    with data_folders.scratch_folder() as scratch:
        archive, reduced = scratch / "archive", scratch / "reduced"
        blobs.copy_to(artifact.content_hash, archive)
        request = {
            **(own if golden is None else child_request(golden)),
            "kind": "check_fixture",
            "archive": str(archive),
            "journal_lane": journal_lane,
            "last_n": last_n,
            "records": records,
            "reduced": str(reduced),
            "max_work": MAX_FIXTURE_WORK,
        }
        try:
            found = children.run_in_child(request, scratch=scratch, readable=[archive], silence_s=CHECK_S)
        except children.Refused as refused:
            raise InvalidInput.at(pointer, f"The capture cannot be a fixture: {refused}.", code="not_usable") from None
        except children.ChildDied as died:
            raise Unavailable("The capture could not be replayed. Try again.", retry_after=5) from died
        except children.TookTooLong:
            raise Unavailable("Replaying the capture took too long. Try again later.", retry_after=10) from None
        content = reduced.read_bytes() if records is not None else None
    if pipeline is not None and found["pipeline"] != pipeline:
        detail = f"The capture belongs to the pipeline {found['pipeline']}."
        raise InvalidInput.at("/pipeline", detail, code="other_pipeline")
    if found["error"] is not None:
        raise InvalidInput.at(pointer, f"The capture cannot be a fixture: {found['error']}.", code="not_usable")
    stored = None
    if golden is not None:
        if found["result"]["egress"] != (golden.result or {}).get("egress"):
            detail = (
                "A replay of the artifact now gives another result than the chosen replay. Replay the artifact again "
                "and choose the new replay."
            )
            raise Conflict(detail, code="fixture.golden_changed")
        stored = {name: found[name] for name in ("result", "spec_kv", "stage_config")}
        if len(json.dumps(stored, ensure_ascii=False).encode()) > MAX_GOLDEN_BYTES:
            detail = f"The replay's result and configuration are larger than {MAX_GOLDEN_BYTES // 1024} KiB together."
            raise InvalidInput.at("/expect/golden", detail, code="too_large")
    return Checked(found["pipeline"], stored, content)


def _store_reduced(artifact: Artifact, content: bytes, records: tuple[int, int], *, actor: Actor) -> Artifact:
    """Create the artifact of a reduced capture, or return the existing one.

    An existing artifact must have the same content, kind, spec hash and deployment. The blob must be stored. Raises
    QuotaExceeded, Conflict if the existing artifact is not verified, or Unavailable if the blob was deleted.
    """
    content_hash = sha256(content)
    blobs.protect(content_hash)
    if not blobs.is_stored(content_hash):
        raise Unavailable("The reduced capture was being deleted at the same time. Try again.", retry_after=1)
    declared = declared_key(artifact.kind, artifact.spec_hash, artifact.deployment_id)
    same = Artifact.objects.filter(
        environment=artifact.environment_id, content_hash=content_hash, declared=declared
    ).first()
    if same is not None:
        same = lock_row(same)  # retention deletes no locked artifact
        captures.check_readable(same)
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
