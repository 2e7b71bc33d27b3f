"""Descriptions of fields: those of their serializers, and defaults by name."""

from __future__ import annotations

from functools import cache
from typing import Any

COMMON_DESCRIPTIONS = {
    "id": "The id, a UUIDv7: resources that were created later have greater ids.",
    "created_at": "When the resource was created.",
    "updated_at": "When the resource was last changed.",
    "organization_id": "The organization that the resource belongs to.",
    "project_id": "The project that the resource belongs to.",
    "environment_id": "The environment that the resource belongs to.",
    "created_by": "Who created the resource, as an e-mail address or the name of an API key.",
    "updated_by": "Who changed the resource last, as an e-mail address or the name of an API key.",
    "requested_by": "Who requested the resource, as an e-mail address or the name of an API key.",
    "deployment_id": "The deployment.",
    "version_id": "The pipeline version.",
    "agent_id": "The agent.",
    "approval_id": "The approval that the resource depends on. Null if it needs none.",
    "spec_hash": "The SHA-256 of the canonical spec: `sha256:` and 64 hexadecimal digits.",
    "config_hash": "The SHA-256 that identifies the content of the config bundle.",
    "bundle_hash": "The SHA-256 of the deploy bundle's tar.",
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
