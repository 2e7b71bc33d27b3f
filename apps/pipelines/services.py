"""Save and promote drafts; copy, compare and draw versions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from apps.pipelines.models import Draft, Version
from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services.revisions import edit, is_same_json, lock_revision
from apps.tenancy.state import lock_row
from byteor_cloud.engine.compiler import (
    COMPILER_VERSION,
    Compilation,
    Ops,
    SpecDiff,
    compile_plan,
    decode,
    diff_specs,
    spec_to_json,
    to_svg,
)
from byteor_cloud.errors import FieldError, NotFound, Unprocessable
from byteor_cloud.offload import run_in_thread


@cache
def installed_ops() -> Ops:
    """Return the ops of this installation. Installed packages are searched once per process."""
    return Ops.installed()


def compile_for_preview(plan: object, *, target: str | None = None) -> Compilation:
    """Compile a plan without storing anything. Returns diagnostics for an invalid plan and does not raise."""
    return run_in_thread(compile_plan, plan, target=target, ops=installed_ops())


def _compile(plan: object) -> Compilation:
    """Compile a plan. Raises Unprocessable with the compiler's errors."""
    compilation = compile_for_preview(plan)
    if not compilation.ok:
        raise Unprocessable(
            "The plan does not compile.",
            code="plan_invalid",
            errors=[
                FieldError(f"/plan{d.pointer}", d.code, d.message)
                for d in compilation.diagnostics
                if d.severity == "error"
            ],
        )
    return compilation


def _draft_fields(plan: object) -> dict[str, Any]:
    """Return the fields of a draft that follow from its plan."""
    compilation = compile_for_preview(plan)
    return {
        "plan": plan,
        "diagnostics": [d.to_json() for d in compilation.diagnostics],
        "spec_hash": compilation.spec_hash,
    }


@transaction.atomic
def create_draft(*, environment: Environment, name: str, plan: object, actor: Actor) -> Draft:
    """Create a draft. If its plan does not compile, its diagnostics say why."""
    draft = Draft.objects.create(
        environment=environment,
        name=name,
        created_by=actor.display,
        updated_by=actor.display,
        **_draft_fields(plan),
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
    draft: Draft, values: Mapping[str, Any], *, actor: Actor, expected_revision: int | None = None
) -> Draft:
    """Change the draft's name or plan. The audit event contains the spec hash, not the plan."""
    locked = lock_revision(draft, expected_revision)
    changed = {**values, **(_draft_fields(values["plan"]) if "plan" in values else {})}
    if any(not is_same_json(getattr(locked, field), value) for field, value in changed.items()):
        changed["updated_by"] = actor.display
    return edit(locked, changed, kind="draft", scope=draft.environment, actor=actor, unaudited={"plan", "diagnostics"})


@transaction.atomic
def delete_draft(draft: Draft, *, actor: Actor, expected_revision: int | None = None) -> None:
    """Delete the draft. Versions that were promoted from the draft are kept."""
    locked = lock_revision(draft, expected_revision)
    audit.record("draft.delete", actor=actor, scope=draft.environment, resource=("draft", draft.pk))
    locked.delete()


@transaction.atomic
def promote(draft: Draft, *, expected_revision: int | None = None, actor: Actor) -> tuple[Version, bool]:
    """Promote the saved plan; return its version and whether it is new. Raises Unprocessable if it does not compile."""
    lock_row(draft.environment)
    locked = lock_revision(draft, expected_revision)
    compilation = _compile(locked.plan)
    assert compilation.spec is not None  # noqa: S101  the plan compiled
    last = Version.objects.filter(environment=draft.environment, draft_id=draft.pk).order_by("-id").first()
    if last is not None and is_same_json(last.plan, locked.plan) and last.compiler_version == COMPILER_VERSION:
        return last, False
    version = _add_version(
        draft.environment,
        actor=actor,
        name=compilation.spec.name,
        draft_id=locked.pk,
        draft_revision=locked.revision,
        plan=locked.plan,
        spec=spec_to_json(compilation.spec),
        spec_kv=compilation.spec_kv,
        spec_hash=compilation.spec_hash,
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


def diff_draft(draft: Draft, *, against: Version) -> SpecDiff:
    """Return the changes from a version to the saved plan. Raises Unprocessable if the plan does not compile."""
    spec = _compile(draft.plan).spec
    assert spec is not None  # noqa: S101  the plan compiled
    return run_in_thread(lambda: diff_specs(decode(against.spec_kv), spec))


def diff_versions(version: Version, *, against: Version) -> SpecDiff:
    """Return the changes from the version ``against`` to ``version``."""
    return run_in_thread(lambda: diff_specs(decode(against.spec_kv), decode(version.spec_kv)))


def draw(version: Version) -> str:
    """Draw the version's graph as SVG."""
    return run_in_thread(lambda: to_svg(decode(version.spec_kv)))
