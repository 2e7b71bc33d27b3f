"""Save and promote drafts; copy, compare and draw versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from apps.pipelines.models import Draft, Version
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, Quota
from apps.tenancy.services import audit
from apps.tenancy.services.quotas import reserve
from apps.tenancy.services.revisions import edit, is_same_json, lock_revision
from apps.tenancy.services.state import lock_row
from byteor.engine.compiler import COMPILER_VERSION, SpecDiff
from byteor_cloud.computing.computations import (
    CompiledDraft,
    CompiledVersion,
    compile_draft,
    compile_version,
    diff_kv,
    diff_plan,
)
from byteor_cloud.computing.computations import draw as draw_kv
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.errors import Conflict, FieldError, NotFound, Unprocessable


def _does_not_compile(errors: Sequence[Mapping[str, str]]) -> Unprocessable:
    return Unprocessable(
        "The plan does not compile.",
        code="plan_invalid",
        errors=[FieldError(f"/plan{each['pointer']}", each["code"], each["message"]) for each in errors],
    )


@transaction.atomic
def create_draft(
    *, environment: Environment, name: str, plan: object, actor: Actor, compiled: CompiledDraft | None = None
) -> Draft:
    """Create a draft. If its plan does not compile, its diagnostics say why. Raises QuotaExceeded.

    ``compiled`` is the compiled plan, if the caller has it: compiling a large one delays the transaction.
    """
    reserve(environment.project.organization_id, {Quota.DRAFTS: 1})
    draft = Draft.objects.create(
        environment=environment,
        name=name,
        created_by=actor.display,
        updated_by=actor.display,
        plan=plan,
        **(compiled or compile_draft(plan))._asdict(),
    )
    audit.record(
        "draft.create",
        actor=actor,
        scope=environment,
        resource=("draft", draft.pk),
        changes={"name": [None, name], "spec_hash": [None, draft.spec_hash]},
    )
    return draft


@transaction.atomic
def update_draft(
    draft: Draft,
    values: Mapping[str, Any],
    *,
    actor: Actor,
    expected_revision: int | None = None,
    compiled: CompiledDraft | None = None,
) -> Draft:
    """Change the draft's name or plan. The audit event contains the spec hash, not the plan.

    ``compiled`` is the new plan as in ``create_draft``.
    """
    locked = lock_revision(draft, expected_revision)
    changed = dict(values)
    if "plan" in values:
        changed |= (compiled or compile_draft(values["plan"]))._asdict()
    if any(not is_same_json(getattr(locked, field), value) for field, value in changed.items()):
        changed["updated_by"] = actor.display
    return edit(locked, changed, kind="draft", scope=draft.environment, actor=actor, unaudited={"plan", "diagnostics"})


@transaction.atomic
def delete_draft(draft: Draft, *, actor: Actor, expected_revision: int | None = None) -> None:
    """Delete the draft. Versions that were promoted from the draft are kept."""
    locked = lock_revision(draft, expected_revision)
    audit.record("draft.delete", actor=actor, scope=draft.environment, resource=("draft", draft.pk))
    locked.delete()


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
    """Return the compiled plan. Raises Conflict if another plan was saved since."""
    if prepared.revision != locked.revision and not is_same_json(prepared.plan, locked.plan):
        raise Conflict("Another plan was saved meanwhile. Try again.", code="draft_changed", retry_after=1)
    return prepared.compiled


@transaction.atomic
def promote(
    draft: Draft, *, expected_revision: int | None = None, actor: Actor, prepared: Promotable | None = None
) -> tuple[Version, bool]:
    """Promote the saved plan; return its version and whether it is new. Raises Unprocessable if it does not compile.

    Raises Conflict if another plan was saved since the plan was ``prepared``.
    """
    lock_row(draft.environment)
    locked = lock_revision(draft, expected_revision)
    compiled = _still_compiled(prepared, locked) if prepared else compile_version(locked.plan)
    if compiled.errors:
        raise _does_not_compile(compiled.errors)
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
    """Number and store a version. The caller must hold the environment's lock, so that numbers have no gap."""
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
    """Copy a version from another environment of the project; return the copy and whether it is new."""
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
    copied_fields = ("plan", "spec", "spec_kv", "spec_hash", "compiler_version", "draft_id", "draft_revision")
    version = _add_version(
        environment,
        actor=actor,
        name=source.name,
        origin_id=source.pk,
        **{field: getattr(source, field) for field in copied_fields},
    )
    return version, True


def diff_draft(draft: Draft, *, against: Version, compute: Compute = here) -> bytes:
    """Return the body of a response with the changes from a version to the saved plan.

    Raises Unprocessable if the plan does not compile.
    """
    found = compute(diff_plan, str(against.pk), against.spec_kv, draft.plan)
    if isinstance(found, list):
        raise _does_not_compile(found)
    return found


def diff_versions(version: Version, *, against: Version, compute: Compute = here) -> SpecDiff:
    """Return the changes from the version ``against`` to ``version``."""
    return compute(diff_kv, against.spec_kv, version.spec_kv)


def draw(version: Version, *, compute: Compute = here) -> str:
    """Draw the version's graph as SVG. Raises Conflict if the drawing is too large."""
    drawing = compute(draw_kv, version.spec_kv)
    if drawing is None:
        raise Conflict("This graph is too large to draw. Its spec says everything about it.", code="graph.too_large")
    return drawing
