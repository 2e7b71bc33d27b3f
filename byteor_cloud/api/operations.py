"""The texts of operations in the OpenAPI document: tag, id, summary and description.

A view refers to its texts as ``operations``. Each app keeps them in ``api/operations.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# Values for examples. A client replaces them with the ids and hashes of its own resources.
ID = "01990a5c-7a40-7cc0-8000-3f2b7e5d1c04"
HASH = "sha256:" + "5f" * 32
PLAN = {
    "plan_v": 1,
    "name": "trades",
    "target": "single_ring",
    "single_ring": {
        "ingress": "trades_in",
        "egress": "trades_out",
        "stages": [{"id": "decode", "op": "identity"}],
    },
}


class Tag(StrEnum):
    """The sections of the document, in their order."""

    HEALTH = "Health and observability"
    AUTHENTICATION = "Authentication"
    ORGANIZATIONS = "Organizations"
    PROJECTS = "Projects"
    ENVIRONMENTS = "Environments"
    PIPELINES = "Pipeline drafts and versions"
    CONFIG_BUNDLES = "Config bundles"
    AGENTS = "Agents"
    DEPLOYMENTS = "Deployments"
    ARTIFACTS = "Artifacts and replay"
    APPROVALS = "Approvals"
    ORGANIZATION_KEYS = "Organization API keys"
    SIGNING_KEYS = "Signing keys"
    AUDIT = "Audit"
    WEBHOOKS = "Webhooks"


TAG_DESCRIPTIONS = {
    Tag.HEALTH: "Probes for load balancers and metrics for monitoring. They need no credential.",
    Tag.AUTHENTICATION: "Signing in, the caller, and the caller's own user tokens.",
    Tag.ORGANIZATIONS: "An organization is the top level: every other resource belongs to exactly one.",
    Tag.PROJECTS: "A project groups environments of one organization.",
    Tag.ENVIRONMENTS: (
        "Agents run in an environment, and deployments are made to an environment. Its posture and settings decide the "
        "rules."
    ),
    Tag.PIPELINES: "A draft holds a plan that can be edited. Promoting it creates an immutable version.",
    Tag.CONFIG_BUNDLES: "A config bundle joins a version with its runtime configuration.",
    Tag.AGENTS: "Agents enroll with an enrollment token and then authenticate with their own key.",
    Tag.DEPLOYMENTS: "A deployment brings a config bundle to one or more agents, with approval where it is required.",
    Tag.ARTIFACTS: (
        "Agents upload artifacts, such as incident captures. A replay runs an incident again through the version that "
        "produced it."
    ),
    Tag.APPROVALS: "Approvals let people review deployments and execute replays before they start.",
    Tag.ORGANIZATION_KEYS: "Keys with which scripts act in an organization.",
    Tag.SIGNING_KEYS: "The Ed25519 keys that sign deploy bundles and approvals.",
    Tag.AUDIT: "The ledger of everything that changed in an organization.",
    Tag.WEBHOOKS: "Signed notifications of deployments and approvals.",
}

SECURITY_SCHEMES = {
    name: {"type": "http", "scheme": "bearer", "description": description}
    for name, description in {
        "bearer": "A user token (`bor_usr_…`) or an organization API key (`bor_org_…`).",
        "enrollmentToken": "An enrollment token (`bor_enr_…`). It is accepted for enrolling an agent only.",
        "agentKey": "An agent key (`bor_agt_…`). It is accepted for the agent's own operations only.",
    }.items()
}


@dataclass(frozen=True)
class Operation:
    """One operation: ``id`` is camelCase and starts with a verb, since generated clients name their functions by it.

    ``example`` is the smallest useful body of an operation that has a body; a test sends the example to a live server.
    """

    id: str
    summary: str
    description: str
    example: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Operations:
    """The operations of one view by the name of the action, or by the method where a view has no actions."""

    tag: Tag
    by_action: Mapping[str, Operation]


WEBHOOK_EVENT = Operations(
    Tag.WEBHOOKS,
    {
        "post": Operation(
            "receiveEvent",
            "Receive an event",
            "Sent to the URL of a webhook. The headers `webhook-id`, `webhook-timestamp` and `webhook-signature` follow"
            " Standard Webhooks. Answer with any 2xx status; any other response is a failed attempt.",
        ),
    },
)
