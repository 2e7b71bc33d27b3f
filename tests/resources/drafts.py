"""Drafts of pipelines."""

from __future__ import annotations

from apps.pipelines.models import Draft
from apps.pipelines.services import drafts
from tests.permissions import OPERATE, VIEW
from tests.resources import Act, Call, E, Page, Place, Resource, Table
from tests.resources.versions import RING, version
from tests.worlds import plan


def draft(place: Place) -> Draft:
    return Draft.objects.get(environment=place.environment, spec_hash=place.get(version).spec_hash)


def fresh_draft(place: Place) -> Draft:
    return drafts.create_draft(
        environment=place.environment, name="fresh", plan=plan("fresh"), actor=place.world.operator.actor
    )


_FORM = ("GET", "POST")
RESOURCE = Resource(
    calls=(
        Call("listDrafts", "GET", E + "/drafts", VIEW, null=frozenset({"plan", "diagnostics"})),
        Call("createDraft", "POST", E + "/drafts", OPERATE, 201),
        Call("getDraft", "GET", E + "/drafts/{id}", VIEW),
        Call("updateDraft", "PUT", E + "/drafts/{id}", OPERATE),
        Call("deleteDraft", "DELETE", E + "/drafts/{id}", OPERATE, 204),
        Call(
            "diffDraft", "GET", E + "/drafts/{id}/diff", VIEW, query=lambda place: f"?against={place.get(version).pk}"
        ),
        Call("previewDraft", "POST", E + "/drafts/{id}/preview", OPERATE, body=lambda place: {"plan": RING}),
        Call("promoteDraft", "POST", E + "/drafts/{id}/version", OPERATE, 201, on=fresh_draft),
    ),
    tables=(
        Table(
            "pipelines.draft", VIEW, draft, "Drafts", acts={"test": Act("requestRegression")},
            pages={
                "pipelines_draft_new": Page("createDraft", _FORM, of_row=False),
                "pipelines_draft_edit": Page("getDraft"),
                "pipelines_draft_preview": Page("previewDraft", ("POST",)),
                "pipelines_draft_save": Page("updateDraft", ("POST",), "?revision=1"),
                "pipelines_draft_promote": Page("promoteDraft", ("POST",), "?revision=1"),
            },
            large=frozenset({"plan", "diagnostics"}),
        ),
    ),
    ids={"drafts": draft},
)  # fmt: skip
