"""Descriptions of fields: those that serializers declare, and defaults by field name."""

from __future__ import annotations

from functools import cache
from typing import Any

COMMON_DESCRIPTIONS = {
    "id": "The id of the resource, a UUIDv7. Ids sort by creation time.",
    "created_at": "When the resource was created.",
    "updated_at": "When the resource was last changed.",
    "organization_id": "The id of the organization that the resource belongs to.",
    "project_id": "The id of the project that the resource belongs to.",
    "environment_id": "The id of the environment that the resource belongs to.",
    "created_by": "Who created the resource: an e-mail address or the name of an API key.",
    "updated_by": "Who last changed the resource: an e-mail address or the name of an API key.",
    "requested_by": "Who requested the resource: an e-mail address or the name of an API key.",
    "deployment_id": "The id of the deployment.",
    "version_id": "The id of the pipeline version.",
    "agent_id": "The id of the agent.",
    "approval_id": "The id of the approval that the resource depends on. Null if it needs none.",
    "spec_hash": "The SHA-256 of the canonical spec: `sha256:` and 64 hexadecimal digits.",
    "config_hash": "The SHA-256 that identifies the content of the config bundle.",
    "bundle_hash": "The SHA-256 of the deploy bundle's tar file.",
    "reason": "The reason, in your own words. It is stored in the audit ledger.",
    "labels": "Key-value pairs that selectors match.",
}


@cache
def descriptions_of(serializer: type[Any]) -> dict[str, str]:
    """Collect the descriptions of a serializer's fields: from the serializer, its base classes and the defaults."""
    found = dict(COMMON_DESCRIPTIONS)
    for base in reversed(serializer.__mro__):
        found |= vars(base).get("descriptions", {})
    return found
