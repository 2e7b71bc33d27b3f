"""Default descriptions of fields by name. A serializer's own description takes precedence."""

from __future__ import annotations

COMMON_DESCRIPTIONS = {
    "id": "The id, a UUIDv7: newer ids are greater.",
    "created_at": "When it was created.",
    "updated_at": "When it was last changed.",
    "organization_id": "The organization that it belongs to.",
    "project_id": "The project that it belongs to.",
    "environment_id": "The environment that it belongs to.",
    "created_by": "Who created it, as an e-mail address or the name of an API key.",
    "updated_by": "Who changed it last, as an e-mail address or the name of an API key.",
    "requested_by": "Who requested it, as an e-mail address or the name of an API key.",
    "deployment_id": "The deployment.",
    "version_id": "The pipeline version.",
    "agent_id": "The agent.",
    "approval_id": "The approval that it depends on. Null if it needs none.",
    "spec_hash": "The SHA-256 of the canonical spec: `sha256:` and 64 hexadecimal digits.",
    "config_hash": "The SHA-256 that identifies the content of the config bundle.",
    "bundle_hash": "The SHA-256 of the deploy bundle's tar.",
    "reason": "Why, in your words. It is kept in the audit ledger.",
    "labels": "Key-value pairs that selectors match.",
}
