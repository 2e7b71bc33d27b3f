"""Requests of the plan editor: compile and save the plan's text, compare it with a version, and promote it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404
from django.template.loader import render_to_string

from apps.pipelines.models import Draft, Version
from apps.pipelines.services import drafts, versions
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services.revisions import is_same_json
from byteor.engine.compiler import PlanSyntaxError, parse_plan, similar_name
from byteor_cloud.computing.computations import compile_draft, plan_text, preview_text
from byteor_cloud.computing.compute import Compute
from byteor_cloud.errors import InvalidInput, PreconditionFailed, Unprocessable

MAX_CHOICES = 100  # versions offered for a comparison, newest first
TARGETS = {"single_ring": "Single ring", "lane_graph": "Lane graph"}
FIRST_PLANS: dict[str, dict[str, Any]] = {
    "single_ring": {
        "ingress": "source",
        "egress": "sink",
        "stages": [{"id": "decode", "op": "identity"}],
    },
    "lane_graph": {
        "ingress": ["source"],
        "egress": ["sink"],
        "stages": [{"id": "decode", "op": "identity"}],
        "connections": [{"from": "source", "to": "decode"}, {"from": "decode", "to": "sink"}],
    },
}


def first_plan(target: str, draft_name: str) -> dict[str, Any]:
    """Return a small plan that compiles, with which a new draft starts. The plan's name comes from ``similar_name``."""
    return {"plan_v": 1, "name": similar_name(draft_name), "target": target, target: FIRST_PLANS[target]}


def preview(
    text: bytes, *, target: str | None = None, against: Version | None = None, compute: Compute
) -> dict[str, Any]:
    """Compile the plan's text. Return the result of ``preview_text``, with its ``diff``, if there is one, as HTML."""
    result = compute(preview_text, text, target, None if against is None else against.spec_kv)
    if "diff" in result:
        result["diff"] = render_to_string("console/diff.html", {"diff": result["diff"]})
    return result


def find_version(environment: Environment, pk: str) -> Version:
    """Return a version of the environment. Raises Http404 if ``pk`` is malformed or there is no such version."""
    try:
        return Version.objects.get(environment=environment, pk=UUID(pk))
    except (ValueError, Version.DoesNotExist):
        raise Http404 from None


def _parse(text: bytes, compute: Compute) -> dict[str, Any]:
    """Parse the plan's text. Raises InvalidInput if the text is not a JSON object."""
    try:
        plan = compute(parse_plan, text)
    except PlanSyntaxError as error:
        raise InvalidInput(f"Line {error.line}, column {error.column}: {error.message}") from None
    if not isinstance(plan, dict):
        raise InvalidInput("A plan must be a JSON object: {…}.")
    return plan


def save(draft: Draft, text: bytes, *, revision: int, actor: Actor, compute: Compute) -> dict[str, Any]:
    """Save the text as the draft's plan, unless the draft was changed since ``revision``.

    Return the outcome: saved, refused (with the reason) or conflict (with the stored plan).
    """
    try:
        plan = _parse(text, compute)
        compiled = compute(compile_draft, plan)
        saved = drafts.update_draft(draft, {"plan": plan}, actor=actor, expected_revision=revision, compiled=compiled)
    except PreconditionFailed:
        return _conflict(draft, compute)
    except InvalidInput as refused:
        return _refused(refused.detail)
    return {"outcome": "saved", "revision": saved.revision}


def promote(draft: Draft, text: bytes, *, revision: int, actor: Actor, compute: Compute) -> dict[str, Any]:
    """Promote the saved plan if it equals the text. Return the outcome: promoted, refused or conflict."""
    try:
        if draft.revision == revision and not is_same_json(_parse(text, compute), draft.plan):
            return _refused("The text differs from the saved plan. Save it first.")
        prepared = versions.prepare_promotion(draft, compute=compute)
        version, is_new = versions.promote(draft, expected_revision=revision, actor=actor, prepared=prepared)
    except PreconditionFailed:
        return _conflict(draft, compute)
    except InvalidInput as refused:
        return _refused(refused.detail)
    except Unprocessable as refused:
        return _refused(f"{refused.detail} Fix the errors, then save.")
    return {"outcome": "promoted", "id": str(version.pk), "version": str(version), "fresh": is_new}


def _refused(detail: str) -> dict[str, Any]:
    """Return the outcome that nothing was written, with what the author must fix first."""
    return {"outcome": "refused", "detail": detail}


def _conflict(draft: Draft, compute: Compute) -> dict[str, Any]:
    """Return the outcome that the draft was changed in the meantime, with the stored plan for the editor to show."""
    draft.refresh_from_db()
    return {
        "outcome": "conflict",
        "revision": draft.revision,
        "by": draft.updated_by,
        "text": compute(plan_text, draft.plan),
    }
