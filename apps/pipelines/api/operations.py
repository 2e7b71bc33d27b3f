"""Names and descriptions of the draft and version operations in the OpenAPI document."""

from __future__ import annotations

from byteor_cloud.api.operations import ID, PLAN, Operation, Operations, Tag

DRAFT = Operations(
    Tag.PIPELINES,
    {
        "list": Operation(
            "listDrafts",
            "List drafts",
            "Returns the environment's pipeline drafts, newest first.",
        ),
        "create": Operation(
            "createDraft",
            "Create a draft",
            "Saves a plan. A plan that does not compile is saved too; `diagnostics` say what is wrong with it. Refused "
            "with `quota.drafts` if the organization has as many drafts as its quota.",
            example={"name": "trades", "plan": PLAN},
        ),
        "retrieve": Operation(
            "getDraft",
            "Get a draft",
            "Returns the draft with the diagnostics of its plan.",
        ),
        "update": Operation(
            "updateDraft",
            "Update a draft",
            "Changes the fields in the body and keeps the others. Send the draft's `ETag` as `If-Match`, so that you "
            "do not overwrite a change by somebody else.",
            example={"name": "trades-eu"},
        ),
        "destroy": Operation(
            "deleteDraft",
            "Delete a draft",
            "Deletes the draft. Versions that were promoted from the draft are kept.",
        ),
        "preview": Operation(
            "previewDraft",
            "Preview a draft",
            "Compiles the saved plan, or the plan in the body, and saves nothing. A plan that does not compile is "
            "answered with 200, `ok: false` and its diagnostics.",
            example={"plan": PLAN},
        ),
        "version": Operation(
            "promoteDraft",
            "Promote a draft to a version",
            "Compiles the saved plan to an immutable version with the next number of its pipeline. Promoting an "
            "unchanged draft again returns the existing version (200). A plan that does not compile is refused "
            "(422).",
            example={"expected_revision": 1},
        ),
        "diff": Operation(
            "diffDraft",
            "Compare a draft with a version",
            "Returns the changes from the version to the saved draft. A draft that does not compile is refused (422).",
        ),
    },
)
VERSION = Operations(
    Tag.PIPELINES,
    {
        "list": Operation(
            "listVersions",
            "List versions",
            "Returns the environment's pipeline versions, newest first.",
        ),
        "create": Operation(
            "copyVersion",
            "Copy a version from another environment",
            "Copies a compiled version from another environment of the same project. Copying the same version again "
            "returns the existing copy (200).",
            example={"from_version_id": ID},
        ),
        "retrieve": Operation(
            "getVersion",
            "Get a version",
            "Returns the version with its plan and its compiled spec.",
        ),
        "spec_kv": Operation(
            "getVersionSpec",
            "Get the canonical spec of a version",
            "Returns the exact bytes whose SHA-256 is the spec hash, as text with one `key=value` per line.",
        ),
        "diff": Operation(
            "diffVersions",
            "Compare two versions",
            "Returns the changes from another version to this one.",
        ),
        "graph": Operation(
            "drawVersion",
            "Draw a version",
            "Returns the compiled pipeline as an SVG drawing. A drawing of more than 4 MiB is refused (409); read "
            "`spec.kv` instead.",
        ),
    },
)
PLAN_SCHEMA = Operations(
    Tag.PIPELINES,
    {
        "retrieve": Operation(
            "getPlanSchema",
            "Get the JSON Schema of a plan",
            "Returns a JSON Schema (2020-12) with which editors can complete and check plans. It changes only with a "
            "release of this service.",
        ),
    },
)
