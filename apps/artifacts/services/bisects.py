"""Bisects: find the first bad version of a pipeline by replaying a capture through its versions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.artifacts.jobs import StepBisect
from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services import captures, replays
from apps.artifacts.services.uploads import WORKER, storable
from apps.pipelines.models import Version
from apps.pipelines.services.versions import diff_versions
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services import audit
from apps.tenancy.services.state import advance, lock_row
from apps.tenancy.services.tokens import person_behind
from byteor.engine.machines import ArtifactStatus, BisectEvent, BisectStatus, ReplayStatus
from byteor.engine.replay import BisectPlan, Predicate, Verdict, judge, plan_bisect, unchecked_stages
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.errors import Conflict, InvalidInput
from byteor_cloud.worker.jobs import enqueue

MAX_EXHAUSTIVE = 256  # maximum number of versions of an exhaustive bisect
MAX_NAMED = 10  # maximum number of stages without parameters that are stored for each version
_FINISHED = (ReplayStatus.SUCCEEDED, ReplayStatus.DIVERGED, ReplayStatus.FAILED)


def request(
    artifact: Artifact,
    *,
    environment: Environment,
    predicate: str | UUID,
    pipeline: str | None = None,
    good: Version | None = None,
    bad: Version | None = None,
    exhaustive: bool = False,
    actor: Actor,
) -> Bisect:
    """Queue a bisect.

    ``predicate`` is ``diverges``, ``fails``, or the id of a replay: a version is bad if its output differs from that
    replay's. Raises Conflict, InvalidInput, NotFound, Unavailable or OSError, or Unprocessable if no ``pipeline`` is
    given and no version has the artifact's spec hash.
    """
    replays.check_permitted(artifact, environment, Replay.Mode.DRY_RUN)
    stored = _stored_predicate(artifact, predicate)
    versions = _versions(environment, pipeline or replays.recorded_version(artifact).name, good, bad)
    if exhaustive and len(versions) > MAX_EXHAUSTIVE:
        detail = f"An exhaustive bisect replays at most {MAX_EXHAUSTIVE} versions. Choose fewer with `good` and `bad`."
        raise InvalidInput.at("/exhaustive", detail, code="too_many")
    with transaction.atomic():
        row = Bisect.objects.create(
            environment=environment,
            artifact=artifact,
            predicate=stored,
            exhaustive=exhaustive,
            versions=[
                {"version_id": str(pk), "number": number, "verdict": None, "replay_id": None, "no_parameters": []}
                for pk, number in versions
            ],
            requested_by=actor.display,
            person=person_behind(actor),
        )
        audit.record(
            "bisect.request",
            actor=actor,
            scope=environment,
            resource=("bisect", row.pk),
            changes={"artifact": str(artifact.pk), "predicate": stored, "versions": len(versions)},
        )
        organization = environment.project.organization_id
        enqueue(StepBisect(bisect_id=str(row.pk)), organization=organization, person=row.person)
    return row


def request_default(artifact: Artifact, *, actor: Actor) -> Bisect:
    """Queue a bisect of the artifact's pipeline.

    The predicate is ``diverges`` if the capture has expected output, and otherwise ``fails``.
    """
    has_expected = artifact.status == ArtifactStatus.VERIFIED and captures.has_expected(artifact)
    predicate = Predicate.DIVERGES if has_expected else Predicate.FAILS
    return request(artifact, environment=artifact.environment, predicate=predicate.value, actor=actor)


def check_default(artifact: Artifact) -> None:
    """Raise the error that ``request_default`` would raise for this artifact, except errors of reading the capture."""
    replays.check_permitted(artifact, artifact.environment, Replay.Mode.DRY_RUN)
    _versions(artifact.environment, replays.recorded_version(artifact).name, None, None)


def _stored_predicate(artifact: Artifact, predicate: str | UUID) -> Any:
    if isinstance(predicate, UUID):
        other = Replay.objects.filter(pk=predicate, environment=artifact.environment_id).first()
        if other is None:
            raise InvalidInput.at(
                "/predicate/output_differs_from", "There is no such replay in this environment.", code="does_not_exist"
            )
        if other.artifact_id != artifact.pk or other.journal_lane is not None or other.last_n is not None:
            detail = "The replay in `output_differs_from` must be a replay of all records of this artifact."
            raise Conflict(detail, code="bisect.different_input")
        if other.status not in _FINISHED or other.result is None:
            detail = "The replay in `output_differs_from` has no result. Choose a replay that has one."
            raise Conflict(detail, code="bisect.not_ended")
        return {Predicate.OUTPUT_DIFFERS_FROM.value: str(other.pk)}
    if predicate == Predicate.DIVERGES and not captures.has_expected(artifact):
        raise Conflict("The capture has no expected output. Use another predicate.", code="no_expected")
    return predicate


def _versions(
    environment: Environment, pipeline: str, good: Version | None, bad: Version | None
) -> list[tuple[UUID, int]]:
    """Return the ids and numbers of the versions from ``good`` to ``bad``, oldest first. Raises InvalidInput.

    The versions are invalid if ``good`` or ``bad`` belongs to another pipeline, if ``good`` is not older than ``bad``,
    or if there are fewer than two versions.
    """
    rows = Version.objects.filter(environment=environment, name=pipeline).order_by("number")
    for pointer, end in (("/good", good), ("/bad", bad)):
        if end is not None and end.name != pipeline:
            raise InvalidInput.at(pointer, f"This is not a version of the pipeline {pipeline}.", code="other_pipeline")
    if good is not None and bad is not None and good.number >= bad.number:
        raise InvalidInput.at("/good", "The good version must be older than the bad version.", code="not_older")
    if good is not None:
        rows = rows.filter(number__gte=good.number)
    if bad is not None:
        rows = rows.filter(number__lte=bad.number)
    versions = list(rows.values_list("pk", "number"))
    if len(versions) < 2:
        raise InvalidInput.at("/pipeline", "A bisect needs at least two versions.", code="too_few_versions")
    return versions


@transaction.atomic
def step(bisect_id: str) -> None:
    """Request the replays that are needed next, or finish the bisect. Safe to run at any time and repeatedly."""
    found = Bisect.objects.filter(pk=bisect_id).first()
    row = lock_row(found, related=("environment__project", "artifact")) if found is not None else None
    if row is None or row.status not in {BisectStatus.QUEUED, BisectStatus.RUNNING}:
        return
    if row.environment.deleted_at or row.environment.project.deleted_at:
        return
    if row.status == BisectStatus.QUEUED:
        row = advance(row, BisectEvent.START, actor=WORKER)
    by_version = {str(each.version_id): each for each in without_large(Replay.objects.filter(bisect=row))}
    if any(each.error_code == "cancelled" for each in by_version.values()):
        _finish(row, BisectEvent.CANCEL, error="one of its replays was canceled")
        return
    verdicts = _verdicts(row, by_version)
    plan = plan_bisect([each["version_id"] for each in row.versions], verdicts, exhaustive=row.exhaustive)
    for version_id in plan.replay:
        if version_id not in by_version:
            by_version[version_id] = replays.request_for_bisect(row, version_id, actor=WORKER)
    # Results may be large, and the result of a finished replay does not change. So the result for each version is read
    # only once.
    unchecked = {
        each["version_id"]: {"no_parameters": unchecked_stages(by_version[each["version_id"]].result)[:MAX_NAMED]}
        for each in row.versions
        if each["verdict"] is None and each["version_id"] in verdicts
    }
    row.versions = [
        each
        | {
            "verdict": verdicts.get(each["version_id"]),
            "replay_id": str(by_version[each["version_id"]].pk) if each["version_id"] in by_version else None,
        }
        | unchecked.get(each["version_id"], {})
        for each in row.versions
    ]
    row.save(update_fields=["versions"])
    if plan.outcome is not None:
        _succeed(row, plan)


def _verdicts(row: Bisect, by_version: dict[str, Replay]) -> dict[str, Verdict]:
    other, predicate = None, row.predicate
    if isinstance(predicate, dict):
        compared = Replay.objects.filter(pk=predicate[Predicate.OUTPUT_DIFFERS_FROM.value]).first()
        predicate, other = Predicate.OUTPUT_DIFFERS_FROM, compared.result if compared else None
    # Reuse stored verdicts: a finished replay does not change, and reading 256 results could take a lot of memory.
    known = {each["version_id"]: Verdict(each["verdict"]) for each in row.versions if each["verdict"]}
    return known | {
        version_id: judge(Predicate(predicate), each.result or {}, each.error_code, other)
        for version_id, each in by_version.items()
        if each.status in _FINISHED and version_id not in known
    }


def _succeed(row: Bisect, plan: BisectPlan) -> None:
    named = Version.objects.in_bulk([each for each in (plan.first_bad, plan.last_good) if each is not None])
    by_id = {str(pk): version for pk, version in named.items()}
    first_bad, last_good = by_id.get(plan.first_bad or ""), by_id.get(plan.last_good or "")
    diff = None
    if first_bad is not None and last_good is not None:
        diff = {"against": str(last_good.pk), **diff_versions(first_bad, against=last_good).to_json()}
    _finish(
        row,
        BisectEvent.SUCCEED,
        outcome=plan.outcome,
        first_bad=first_bad,
        last_good=last_good,
        monotone=plan.monotone,
        diff=diff,
    )


def _finish(row: Bisect, event: BisectEvent, **fields: Any) -> None:
    shown = {name: str(fields[name]) for name in ("outcome", "error", "first_bad") if fields.get(name)}
    advance(row, event, actor=WORKER, changes=shown, finished_at=timezone.now(), **fields)


@transaction.atomic
def give_up(bisect_id: str, error: str) -> None:
    """Fail a bisect whose job became a dead letter."""
    found = Bisect.objects.filter(pk=bisect_id).first()
    row = lock_row(found) if found is not None else None
    if row is not None and row.status in {BisectStatus.QUEUED, BisectStatus.RUNNING}:
        _finish(row, BisectEvent.FAIL, error=storable(error))
