"""What the console's plan editor asks for: a text compiled, saved, promoted, compared. Writes nothing by itself."""

from __future__ import annotations

from typing import Any

from django.template.loader import render_to_string

from apps.pipelines import services
from apps.pipelines.models import Draft, Version
from apps.tenancy.actors import Actor
from apps.tenancy.services.revisions import is_same_json
from byteor_cloud.engine.compiler import (
    Compilation,
    Diagnostic,
    PipelineSpec,
    PlanSyntaxError,
    decode,
    diff_specs,
    locate,
    parse_plan,
    to_svg,
    write_plan,
)
from byteor_cloud.errors import InvalidInput, PreconditionFailed, Unprocessable

TARGETS = {"single_ring": "Single ring", "lane_graph": "Lane graph"}
# A drawing of more is nothing that one reads while typing.
MOST_DRAWN = 500
STARTS: dict[str, dict[str, Any]] = {
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


def first_plan(target: str) -> dict[str, Any]:
    """A plan to begin with, which compiles."""
    return {"plan_v": 1, "name": "pipeline", "target": target, target: STARTS[target]}


def preview(text: bytes, *, target: str | None = None, against: Version | None = None) -> dict[str, Any]:
    """What the compiler says of a text, each finding at its line; with ``against``, what changed since that version."""
    try:
        plan = parse_plan(text)
    except PlanSyntaxError as fault:
        return {"ok": False, "diagnostics": [_malformed(fault)]}
    compilation = services.compile_for_preview(plan, target=target)
    answer = {"ok": compilation.ok, "diagnostics": _located(text.decode(), compilation.diagnostics)}
    if compilation.spec is not None:
        answer |= _compiled(compilation, compilation.spec)
        if against is not None:
            answer["diff"] = render_to_string(
                "console/diff.html", {"diff": diff_specs(decode(against.spec_kv), compilation.spec)}
            )
    return answer


def _compiled(compilation: Compilation, spec: PipelineSpec) -> dict[str, Any]:
    return {
        "target": compilation.target,
        "spec_kv": compilation.spec_kv,
        "spec_hash": compilation.spec_hash,
        "svg": to_svg(spec) if len(spec.stages) <= MOST_DRAWN else None,
    }


def _malformed(fault: PlanSyntaxError) -> dict[str, Any]:
    return {
        "severity": "error",
        "code": "plan.syntax",
        "message": fault.message,
        "hint": "",
        "line": fault.line,
        "column": fault.column,
    }


def _located(text: str, diagnostics: tuple[Diagnostic, ...]) -> list[dict[str, Any]]:
    places = locate(text, [diagnostic.pointer for diagnostic in diagnostics])
    return [{**each.to_json(), **places[each.pointer]._asdict()} for each in diagnostics]


def _plan(text: bytes) -> dict[str, Any]:
    """The plan that a text holds. Raises InvalidInput."""
    try:
        plan = parse_plan(text)
    except PlanSyntaxError as fault:
        raise InvalidInput(f"Line {fault.line}, column {fault.column}: {fault.message}") from None
    if not isinstance(plan, dict):
        raise InvalidInput("A plan is a JSON object: {…}.")
    return plan


def save(draft: Draft, text: bytes, *, revision: int, actor: Actor) -> dict[str, Any]:
    """Save the text as the draft's plan, unless somebody saved another since ``revision``; what became of it."""
    try:
        saved = services.update_draft(draft, {"plan": _plan(text)}, actor=actor, expected_revision=revision)
    except PreconditionFailed:
        return _conflict(draft)
    except InvalidInput as refused:
        return _refused(refused.detail)
    return {"outcome": "saved", "revision": saved.revision}


def promote(draft: Draft, text: bytes, *, revision: int, actor: Actor) -> dict[str, Any]:
    """Promote the saved plan, where that is what the text says; what became of it."""
    try:
        if draft.revision == revision and not is_same_json(_plan(text), draft.plan):
            return _refused("The text differs from the saved plan: save first.")
        version, fresh = services.promote(draft, expected_revision=revision, actor=actor)
    except PreconditionFailed:
        return _conflict(draft)
    except InvalidInput as refused:
        return _refused(refused.detail)
    except Unprocessable as refused:
        return _refused(f"{refused.detail} Mend its errors, then save.")
    return {"outcome": "promoted", "id": str(version.pk), "version": str(version), "fresh": fresh}


def _refused(detail: str) -> dict[str, Any]:
    """What the author has to mend first; nothing was written."""
    return {"outcome": "refused", "detail": detail}


def _conflict(draft: Draft) -> dict[str, Any]:
    """What somebody else saved meanwhile, so that the editor can show it beside the text that was not saved."""
    draft.refresh_from_db()
    return {
        "outcome": "conflict",
        "revision": draft.revision,
        "by": draft.updated_by,
        "text": write_plan(draft.plan),
    }
