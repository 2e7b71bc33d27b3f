"""Promote drafts to versions; copy, compare and draw versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from apps.pipelines.models import Draft, Version
from apps.pipelines.services.drafts import does_not_compile
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services import audit
from apps.tenancy.services.revisions import is_same_json, lock_revision
from apps.tenancy.services.state import lock_row
from byteor.engine.compiler import COMPILER_VERSION, SpecDiff
from byteor_cloud.computing.computations import CompiledVersion, compile_version, diff_kv
from byteor_cloud.computing.computations import draw as draw_kv
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Promotable:
    """A draft's saved plan, compiled before the transaction that promotes it."""

    revision: int
    plan: object
    compiled: CompiledVersion


def prepare_promotion(draft: Draft, *, compute: Compute) -> Promotable:
    """Compile the saved plan for ``promote``."""
    return Promotable(draft.revision, draft.plan, compute(compile_version, draft.plan))


def _still_compiled(prepared: Promotable, locked: Draft) -> CompiledVersion:
    """Return the compiled plan. Raises Conflict if another plan was saved after ``prepare_promotion``."""
    if prepared.revision != locked.revision and not is_same_json(prepared.plan, locked.plan):
        raise Conflict("Another plan was saved in the meantime. Try again.", code="draft_changed", retry_after=1)
    return prepared.compiled


@transaction.atomic
def promote(
    draft: Draft, *, expected_revision: int | None = None, actor: Actor, prepared: Promotable | None = None
) -> tuple[Version, bool]:
    """Promote the saved plan. Returns the version and whether it is new.

    If the draft's last version has the same plan and compiler version, that version is returned.
    Raises Unprocessable if the plan does not compile, Conflict if another plan was saved after ``prepared`` was
    compiled, and the errors of ``lock_revision``.
    """
    lock_row(draft.environment)
    locked = lock_revision(draft, expected_revision)
    compiled = _still_compiled(prepared, locked) if prepared else compile_version(locked.plan)
    if compiled.errors:
        raise does_not_compile(compiled.errors)
    last = Version.objects.filter(environment=draft.environment, draft_id=draft.pk).order_by("-id").first()
    if last is not None and is_same_json(last.plan, locked.plan) and last.compiler_version == COMPILER_VERSION:
        return last, False
    version = _add_version(
        draft.environment,
        actor=actor,
        name=compiled.name,
        draft_id=locked.pk,
        draft_revision=locked.revision,
        plan=locked.plan,
        spec=compiled.spec,
        spec_kv=compiled.spec_kv,
        spec_hash=compiled.spec_hash,
        compiler_version=COMPILER_VERSION,
    )
    return version, True


def _add_version(environment: Environment, *, actor: Actor, name: str, **fields: Any) -> Version:
    """Number and store a version. The caller must have locked the environment, so that numbers are unique."""
    last_number = Version.objects.filter(environment=environment, name=name).aggregate(Max("number"))["number__max"]
    version = Version.objects.create(
        environment=environment, name=name, number=(last_number or 0) + 1, created_by=actor.display, **fields
    )
    audit.record(
        "version.create",
        actor=actor,
        scope=environment,
        resource=("version", version.pk),
        changes={"version": [None, str(version)], "spec_hash": [None, version.spec_hash]},
    )
    return version


@transaction.atomic
def copy_version(*, environment: Environment, from_version_id: UUID, actor: Actor) -> tuple[Version, bool]:
    """Copy a version from another environment of the project. Returns the copy and True.

    Returns an existing version and False in two cases: the version itself if it belongs to ``environment``, and the
    newest version of its pipeline in ``environment`` if that is a copy of it. Raises NotFound if the project has no
    such version.
    """
    lock_row(environment)
    source = Version.objects.filter(
        pk=from_version_id, environment__project=environment.project, environment__deleted_at=None
    ).first()
    if source is None:
        raise NotFound("There is no such version in this project.")
    if source.environment_id == environment.pk:
        return source, False
    last = Version.objects.filter(environment=environment, name=source.name).order_by("-number").first()
    if last is not None and last.origin_id == source.pk:
        return last, False
    return _add_copy(environment, source, actor=actor), True


def _add_copy(environment: Environment, source: Version, *, actor: Actor) -> Version:
    copied_fields = ("plan", "spec", "spec_kv", "spec_hash", "compiler_version", "draft_id", "draft_revision")
    return _add_version(
        environment,
        actor=actor,
        name=source.name,
        origin_id=source.pk,
        **{field: getattr(source, field) for field in copied_fields},
    )


def find_or_copy_version(*, environment: Environment, from_version_id: UUID, actor: Actor) -> Version:
    """Return the newest version in ``environment`` with the same pipeline and spec as another version, or a new copy.

    The caller has checked that the other version belongs to the same project, and has locked ``environment``. Raises
    NotFound if the other version was deleted.
    """
    source = without_large(Version.objects.filter(pk=from_version_id)).first()
    if source is None:
        raise NotFound("There is no such version in this project.")
    same = Version.objects.filter(environment=environment, name=source.name, spec_hash=source.spec_hash)
    found = without_large(same).order_by("-number").first()
    return found or _add_copy(environment, Version.objects.get(pk=from_version_id), actor=actor)


def diff_versions(version: Version, *, against: Version, compute: Compute = here) -> SpecDiff:
    """Return the changes from the version ``against`` to ``version``."""
    return compute(diff_kv, against.spec_kv, version.spec_kv)


def draw(version: Version, *, compute: Compute = here) -> str:
    """Draw the version's graph as SVG. Raises Conflict if the drawing is too large."""
    drawing = compute(draw_kv, version.spec_kv)
    if drawing is None:
        raise Conflict("The graph is too large to draw. Read the version's `spec.kv` instead.", code="graph.too_large")
    return drawing
