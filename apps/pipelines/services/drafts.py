"""Create, change, delete and compare drafts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction

from apps.pipelines.models import Draft, Version
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, Quota
from apps.tenancy.services import audit
from apps.tenancy.services.quotas import reserve
from apps.tenancy.services.revisions import edit, is_same_json, lock_revision
from byteor_cloud.computing.computations import CompiledDraft, compile_draft, diff_plan
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.errors import FieldError, Unprocessable


@transaction.atomic
def create_draft(
    *, environment: Environment, name: str, plan: object, actor: Actor, compiled: CompiledDraft | None = None
) -> Draft:
    """Create a draft, even if its plan does not compile. Raises QuotaExceeded, or IntegrityError for a taken name.

    ``compiled`` is the result of compiling the plan, if the caller compiled it in advance. Compiling a large plan here
    would prolong the transaction.
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
    """Change the draft's name, plan or both. The audit event has the spec hash if it changed, but never the plan.

    ``compiled`` is the result of compiling the new plan, as for ``create_draft``. Raises the errors of
    ``lock_revision``, or IntegrityError for a taken name.
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
    """Delete the draft. Versions promoted from it are kept. Raises the errors of ``lock_revision``."""
    locked = lock_revision(draft, expected_revision)
    audit.record("draft.delete", actor=actor, scope=draft.environment, resource=("draft", draft.pk))
    locked.delete()


def diff_draft(draft: Draft, *, against: Version, compute: Compute = here) -> bytes:
    """Return the body of a response with the changes from a version to the saved plan.

    Raises Unprocessable if the plan does not compile.
    """
    found = compute(diff_plan, str(against.pk), against.spec_kv, draft.plan)
    if isinstance(found, list):
        raise does_not_compile(found)
    return found


def does_not_compile(errors: Sequence[Mapping[str, str]]) -> Unprocessable:
    """Return the error for a plan with these diagnostics."""
    return Unprocessable(
        "The plan does not compile.",
        code="plan_invalid",
        errors=[FieldError(f"/plan{each['pointer']}", each["code"], each["message"]) for each in errors],
    )
