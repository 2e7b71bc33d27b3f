"""Descriptions of fields: those that serializers declare, and defaults by field name."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

# ``{noun}`` becomes the noun for the row that a serializer describes.
COMMON_DESCRIPTIONS = {
    "id": "The id of the {noun}, a UUIDv7. Ids sort by creation time.",
    "created_at": "When the {noun} was created.",
    "updated_at": "When the {noun} was last changed.",
    "organization_id": "The id of the organization that the {noun} belongs to.",
    "project_id": "The id of the project that the {noun} belongs to.",
    "environment_id": "The id of the environment that the {noun} belongs to.",
    "created_by": "Who created the {noun}: an e-mail address, or `key` and the name of an organization API key.",
    "updated_by": "Who last changed the {noun}: an e-mail address, or `key` and the name of an organization API key.",
    "requested_by": "Who requested the {noun}: an e-mail address, or `key` and the name of an organization API key.",
    "deployment_id": "The id of the deployment.",
    "version_id": "The id of the pipeline version.",
    "agent_id": "The id of the agent.",
    "approval_id": "The id of the {noun}'s approval. Null if it has none.",
    "spec_hash": "The SHA-256 of the canonical spec: `sha256:` and 64 lowercase hexadecimal digits.",
    "config_hash": "The SHA-256 that identifies the content of the config bundle.",
    "bundle_hash": "The SHA-256 of the deploy bundle's tar file.",
    "reason": "The reason, in your own words. It is stored in the audit trail.",
    "labels": "Key-value pairs that selectors match.",
}
# The nouns that differ from the name of the serializer.
_NOUNS = {
    "DeploymentAgent": "agent's part in the deployment",
    "InvitedMember": "membership",
    "MatrixVersion": "promoted version",
    "Member": "membership",
    "OrganizationKey": "organization API key",
}


@cache
def descriptions_of(serializer: type[Any]) -> dict[str, str]:
    """Collect the descriptions of a serializer's fields: from the serializer, its base classes and the defaults."""
    shape = serializer.__name__.removeprefix("Listed").removesuffix("Serializer").removesuffix("WithSecret")
    noun = _NOUNS.get(shape) or words(shape)
    found = {name: text.replace("{noun}", noun) for name, text in COMMON_DESCRIPTIONS.items()}
    for base in reversed(serializer.__mro__):
        found |= vars(base).get("descriptions", {})
    return found


def words(name: str) -> str:
    """Return the words of a class name in lower case: "config bundle" for ``ConfigBundle``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()
